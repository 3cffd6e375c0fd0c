#include "launch/rank_process.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "core/error.h"
#include "launch/clock.h"
#include "launch/messages.h"

namespace xdit::launch {
namespace {

using nlohmann::json;

constexpr const char* kRankLibrary = "libxdit-rank.so";

void* open_library(const std::string& path) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(
        ExitCode::kInternal, fmt::format("cannot load {}: {}", path, ::dlerror()), {},
        "scripts/build, or XDIT_LIBTORCH=.../site-packages, the folder with LibTorch 2.11.0 in torch/");
  return library;
}

// Opened here and not linked: LibTorch takes half a second to load, and only a rank needs it. Never closed,
// since LibTorch cannot be unloaded.
pipeline::RunRank* open_rank_library() {
  // What is loaded already serves the rank library, whatever its RUNPATH says.
  if (const char* folder = std::getenv("XDIT_LIBTORCH"); folder != nullptr && *folder != '\0')
    for (const char* name : {"libtorch_cuda.so", "libtorch.so"})
      static_cast<void>(open_library(fmt::format("{}/torch/lib/{}", folder, name)));
  void* library = open_library(kRankLibrary);  // by the executable's RUNPATH
  void* entry = ::dlsym(library, pipeline::kRunRankSymbol);
  XDIT_ASSERT(entry != nullptr);
  return reinterpret_cast<pipeline::RunRank*>(entry);
}

/// The rank's side of the channel: two threads send.
class Teller final : public pipeline::Listener {
 public:
  explicit Teller(Channel channel) : channel_(std::move(channel)) {}

  void begin(std::string_view phase, std::int64_t steps) override {
    tell({{"begin", phase}, {"steps", steps}});
  }
  void advance(std::int64_t done) override { tell({{"advance", done}}); }
  void finish() override { tell({{"finish", true}}); }
  void picture(std::int64_t index) override { tell({{"picture", index}}); }
  void warn(std::string_view line) override { tell({{"warn", line}}); }
  void failed(std::int64_t picture, const Error& why) override {
    json message = error_message(why);
    message["failed"] = picture;
    tell(message);
  }

  void tell(const json& message) {
    const std::lock_guard lock(sending_);
    channel_.send(message);
  }

  /// Says each `beat_s` that the process lives and hears the launcher; returns when the launcher is gone.
  void keep_in_touch(StopToken& stop, double beat_s) {
    std::vector<json> messages;
    do {
      tell(json::object());
      for (const json& message : std::exchange(messages, {})) stop.request(message.at("stop").get<int>());
      pollfd readable{channel_.descriptor(), POLLIN, 0};
      ::poll(&readable, 1, static_cast<int>(beat_s * 1e3));
    } while (channel_.receive(messages));
  }

 private:
  Channel channel_;
  std::mutex sending_;
};

using Jobs = std::vector<pipeline::RankJob>;

int report_failure(const Jobs& jobs, Teller& teller, const Error& error) {
  json message = error_message(error);
  for (const pipeline::RankJob& job : jobs) {
    const std::optional<int> first = job.peers ? job.peers->aborted() : std::nullopt;
    if (first && *first != job.rank) message["after"] = *first;
  }
  teller.tell(message);
  for (const pipeline::RankJob& job : jobs)
    if (job.peers) job.peers->abort(static_cast<int>(job.rank));  // told before any peer can notice
  return static_cast<int>(error.code());
}

int run_and_tell(const Jobs& jobs, Teller& teller) {
  try {
    output::Report report;
    run_rank(jobs, teller, report);
    teller.tell(report_message(report));
    return 0;
  } catch (const Error& error) {
    return report_failure(jobs, teller, error);
  } catch (const std::bad_alloc&) {
    return report_failure(jobs, teller, Error(ExitCode::kMemory, "out of memory", {}, "a smaller --size"));
  } catch (const std::exception& error) {
    return report_failure(jobs, teller,
                          Error(ExitCode::kInternal, fmt::format("internal error: {}", error.what())));
  }
}

}  // namespace

void run_rank(const Jobs& jobs, pipeline::Listener& listener, output::Report& report) {
  pipeline::RunRank* run = open_rank_library();
  const pipeline::RankJob& first = jobs.front();
  report.phases.push_back({"start", 0, now_s() - first.started_s, first.rank, -1, -1});
  run(jobs, listener, report);
}

void rank_main(const Jobs& jobs, StopToken& stop, Channel channel, pid_t launcher, double beat_s) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != launcher) ::_exit(1);  // it died before that
  ::prctl(PR_SET_NAME, fmt::format("xdit-rank-{}", jobs.front().rank).c_str());
  Teller teller(std::move(channel));
  std::thread([&] { teller.keep_in_touch(stop, beat_s); }).detach();  // as long as the process
  ::_exit(run_and_tell(jobs, teller));  // the launcher's buffers and LibTorch's destructors stay untouched
}

}  // namespace xdit::launch
