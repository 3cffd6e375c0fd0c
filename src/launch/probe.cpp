#include "launch/probe.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <exception>
#include <utility>

#include "launch/channel.h"
#include "launch/clock.h"
#include "launch/messages.h"
#include "launch/rank_process.h"

namespace xdit::pipeline {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Probe, cuda, nccl, product, memory, host, pairs, faults)

}  // namespace xdit::pipeline

namespace xdit::launch {
namespace {

using nlohmann::json;

[[noreturn]] void try_and_tell(std::size_t gpus, const Channel& channel, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  json told;
  try {
    pipeline::Probe probe;
    auto* const work = reinterpret_cast<pipeline::TryGpus*>(rank_entry(pipeline::kTryGpusSymbol));
    work(probe, static_cast<std::int64_t>(gpus));
    told = {{"probe", probe}};
  } catch (const Error& error) {
    told = error_message(error);
  } catch (const std::exception& error) {
    told = error_message(Error(ExitCode::kInternal, error.what()));
  }
  channel.send(told);
  ::_exit(0);
}

// A process that is ended when nobody waits for it any more.
class Trial {
 public:
  explicit Trial(pid_t process) : process_(process) {}
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;
  ~Trial() {
    constexpr int kTurns = 500;  // of 10 ms: one in the hands of a driver that hangs cannot be waited for
    ::kill(process_, SIGKILL);
    for (int i = 0; i < kTurns && ::waitpid(process_, nullptr, WNOHANG) == 0; ++i) ::usleep(10'000);
  }

 private:
  pid_t process_;
};

}  // namespace

pipeline::Probe try_gpus(std::size_t gpus, double limit_s, const StopToken& stop,
                         const std::function<void()>& meanwhile) {
  auto [ours, theirs] = Channel::make();
  const pid_t parent = ::getpid();
  const pid_t process = ::fork();
  if (process < 0)
    throw Error(ExitCode::kRank, "cannot start a process", {}, "a higher limit of processes (ulimit -u)");
  if (process == 0) try_and_tell(gpus, theirs, parent);
  const Trial trial(process);
  { const Channel closed = std::move(theirs); }
  const double until_s = now_s() + limit_s;
  std::vector<json> messages;
  for (bool open = true; open && messages.empty();) {
    stop.check();
    if (now_s() > until_s)
      throw Error(ExitCode::kRank, "the GPUs did not answer in time", {},
                  "dmesg for errors of the driver (Xid), then a reset of the GPU or a reboot");
    constexpr int kPauseMs = 100;
    pollfd readable{ours.descriptor(), POLLIN, 0};
    ::poll(&readable, 1, kPauseMs);
    meanwhile();
    open = ours.receive(messages);
  }
  if (messages.empty())
    throw Error(ExitCode::kRank, "the process that tries the GPUs died", {},
                "dmesg for errors of the driver (Xid)");
  if (messages.front().contains("error")) throw error_of(messages.front());
  return messages.front().at("probe").get<pipeline::Probe>();
}

}  // namespace xdit::launch
