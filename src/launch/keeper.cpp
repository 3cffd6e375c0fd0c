#include "launch/keeper.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <deque>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "launch/clock.h"
#include "launch/messages.h"
#include "launch/ranks.h"
#include "launch/teller.h"

namespace xdit::launch {
namespace {

using nlohmann::json;

constexpr int kWaiting = 64;  // connections
constexpr int kWakeMs = 200;  // a signal that arrives just before poll() waits so long
constexpr double kBeatS = 0.25;
constexpr double kPatienceS = 2;  // with a connection that does not say what it wants

bool readable_within(int descriptor, int wait_ms) {
  pollfd readable{descriptor, POLLIN, 0};
  return ::poll(&readable, 1, wait_ms) > 0;
}

class Keeper {
 public:
  Keeper(const Keeping& keeping, const File& listening)
      : keeping_(keeping), listening_(listening), keep_s_(keeping.keep_s) {}

  void serve(Channel first) {
    answer(std::move(first));
    double until_s = now_s() + keep_s_;
    while (!ends_ && keeping_.stop.signal() == 0 && now_s() < until_s) {
      const auto left_ms = static_cast<int>((until_s - now_s()) * 1e3) + 1;
      welcome(waiting_.empty() ? std::clamp(left_ms, 0, kWakeMs) : 0);
      if (waiting_.empty()) continue;
      Channel next = std::move(waiting_.front());
      waiting_.pop_front();
      answer(std::move(next));
      until_s = now_s() + keep_s_;
    }
  }

 private:
  void welcome(int wait_ms) {
    while (readable_within(listening_.descriptor(), std::exchange(wait_ms, 0))) {
      std::optional<File> connection = accept_own(listening_);
      if (!connection) return;
      waiting_.emplace_back(std::move(*connection));
    }
  }

  // Nobody who does not read is waited for.
  void beat() {
    if (now_s() - beaten_s_ < kBeatS) return;
    beaten_s_ = now_s();
    const auto tell = [](const Channel& channel) {
      pollfd writable{channel.descriptor(), POLLOUT, 0};
      if (::poll(&writable, 1, 0) > 0) channel.send(json::object());
    };
    tell(*channel_);
    for (const Channel& channel : waiting_) tell(channel);
  }

  void answer(Channel connection) {
    channel_.emplace(std::move(connection));
    heard_.clear();
    if (const std::optional<json> asked = hear()) {
      const json& keep_s = asked->at("keep_s");
      if (asked->at("join") == keeping_.identity) {
        if (!keep_s.is_null()) keep_s_ = keep_s.get<double>();
        channel_->send({{"taken", true}});
        if (const std::optional<json> message = hear()) work(message->at("task"));
      } else {
        channel_->send({{"other", true}});
        ends_ = !keep_s.is_null();
      }
    }
    if (!ends_ && keeping_.stop.signal() == 0)
      channel_.reset();  // else the other end waits until the ranks are gone
  }

  std::optional<json> hear() {
    const double until = now_s() + kPatienceS;
    while (heard_.empty() && keeping_.stop.signal() == 0 && now_s() < until) {
      welcome(0);
      beat();
      if (readable_within(channel_->descriptor(), kWakeMs) && !channel_->receive(heard_)) break;
    }
    if (heard_.empty()) return std::nullopt;
    json first = std::move(heard_.front());
    heard_.erase(heard_.begin());
    return first;
  }

  void work(const json& asked) {
    stop_.request(0);
    aside_.descriptor = channel_->descriptor();
    Teller teller(*channel_);
    try {
      const Task task = task_of(asked);
      output::Report report;
      ranks_.make(task, keeping_.models, parallel::make_plan(task.spec, keeping_.models.model, task.machine),
                  teller, stop_, report);
      teller.tell(report_message(report));
    } catch (const Error& error) {
      const Error ended(ExitCode::kRank, "the ranks that stayed were ended", {}, "the same command again");
      teller.tell(error_message(keeping_.stop.signal() != 0 ? ended : error));
    }
  }

  // While ranks work: who asked may want no more, or be gone.
  void look() {
    welcome(0);
    beat();
    if (keeping_.stop.signal() != 0) stop_.request(SIGTERM);
    if (aside_.descriptor < 0) return;
    const bool open = channel_->receive(heard_);
    for (const json& message : std::exchange(heard_, {})) stop_.request(message.at("stop").get<int>());
    if (open) return;
    stop_.request(SIGINT);
    aside_.descriptor = -1;
  }

  const Keeping& keeping_;
  const File& listening_;
  std::deque<Channel> waiting_;  // for their turn
  double beaten_s_ = 0;
  double keep_s_;
  bool ends_ = false;
  StopToken stop_;  // of the task
  std::optional<Channel> channel_;
  std::vector<json> heard_;
  Aside aside_{.look = [this] { look(); }};
  Ranks ranks_{/*stay=*/true, aside_};
};

// Descriptors of the caller may be pipes that somebody waits on.
void keep_nothing_but(int one, int other) {
  const int null = ::open("/dev/null", O_RDWR);
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, standard);
  const auto [low, high] = std::minmax(one, other);
  const auto close_all = [](int first, unsigned last) {
    if (static_cast<unsigned>(first) <= last) ::close_range(static_cast<unsigned>(first), last, 0);
  };
  close_all(STDERR_FILENO + 1, static_cast<unsigned>(low) - 1);
  close_all(low + 1, static_cast<unsigned>(high) - 1);
  close_all(high + 1, ~0U);
}

[[noreturn]] void live(const Keeping& keeping, const File& listening, Channel first) {
  ::setsid();
  ::prctl(PR_SET_NAME, "xdit-kept");
  keep_nothing_but(listening.descriptor(), first.descriptor());
  if (::listen(listening.descriptor(), kWaiting) != 0) ::_exit(1);
  first.send(json::object());
  {
    Keeper keeper(keeping, listening);
    keeper.serve(std::move(first));
    const File lock = keeping.place.lock();
    keeping.place.remove();
  }
  ::_exit(0);
}

}  // namespace

Kept start_keeper(const Keeping& keeping) {
  const File listening = keeping.place.bind();
  auto [ours, theirs] = Channel::make();
  const pid_t process = ::fork();
  if (process < 0)
    throw Error(ExitCode::kRank, fmt::format("cannot start a process: {}", std::strerror(errno)), {},
                "a higher limit of processes (ulimit -u)");
  if (process == 0) {
    try {
      { const Channel unused = std::move(ours); }
      live(keeping, listening, std::move(theirs));
    } catch (...) {  // nobody is there to be told
    }
    ::_exit(1);
  }
  { const Channel unused = std::move(theirs); }
  std::vector<json> ready;
  while (ready.empty() && ours.receive(ready)) static_cast<void>(readable_within(ours.descriptor(), kWakeMs));
  return {.channel = std::move(ours), .process = process};
}

}  // namespace xdit::launch
