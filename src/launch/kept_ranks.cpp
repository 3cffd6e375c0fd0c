#include "launch/kept_ranks.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "launch/clock.h"
#include "launch/keeper.h"
#include "launch/messages.h"

namespace xdit::launch {
namespace {

using nlohmann::json;

constexpr int kLookMs = 200;
constexpr double kCancelGraceS = 2.5;  // for ranks to end their step after Ctrl-C
constexpr double kNoticeS = 1;         // of waiting for another's task
constexpr double kEndGraceS = 10;
constexpr double kMeetS = 10;   // of silence before it takes the task
constexpr double kEndingS = 3;  // a keeper that ends its ranks does not speak
constexpr int kMeetings = 5;    // with ranks that end just then

// What ranks that stay cannot change, or must not.
std::string identity_of(const Task& task, const parallel::Plan& plan) {
  struct stat program {};
  static_cast<void>(::stat("/proc/self/exe", &program));
  std::string text = fmt::format("{} {} {}.{} {} {}\n", XDIT_VERSION, program.st_ino, program.st_mtim.tv_sec,
                                 program.st_mtim.tv_nsec, static_cast<int>(plan.transport), plan.shard);
  for (const auto& [name, degree] : plan.mesh.degrees()) text += fmt::format("{} {} ", name, degree);
  return text + seats_of(task, plan) + "\n" + task.weights;
}

// Whoever makes it may stand in another folder.
Task with_whole_paths(Task task) {
  task.last = false;
  for (auto* paths : {&task.paths, &task.previews})
    for (auto& [index, path] : *paths) path = std::filesystem::absolute(path);
  std::string& trace = task.spec.output.trace;
  if (!trace.empty()) trace = std::filesystem::absolute(trace).string();
  return task;
}

/// One task, made by ranks that stay.
class Joined {
 public:
  enum class Answer : std::uint8_t { kDone, kOther, kGone, kSilent };

  Joined(Kept kept, pipeline::Listener& listener, const StopToken& stop, output::Report& report)
      : channel_(std::move(kept.channel)),
        keeper_(kept.process),
        listener_(listener),
        stop_(stop),
        report_(report) {}

  /// kOther, kGone and kSilent: not begun. Those that end have ended when it returns. Error(kRank) when
  /// one that has the task, or is to keep ranks, is silent.
  Answer make(const Task& task, const std::string& identity, const std::optional<double>& keep_s) {
    channel_.send({{"join", identity}, {"keep_s", keep_s ? json(*keep_s) : json()}});
    const double begun_s = heard_s_ = now_s();
    const double timeout_s = task.spec.runtime.timeout_s;
    while (listen()) {
      for (const json& message : std::exchange(heard_, {})) {
        if (message.contains("other")) {
          while (keep_s && listen()) {
            heard_.clear();
            if (silent_for(timeout_s)) fail_silent();
          }
          return Answer::kOther;
        }
        if (message.contains("taken")) {
          taken_ = true;
          channel_.send({{"task", json_of(task)}});
        } else if (take(message)) {
          return Answer::kDone;
        }
      }
      if (silent_for(taken_ ? timeout_s : std::min(timeout_s, kMeetS))) {
        if (taken_ || keep_s) fail_silent();
        listener_.warn(fmt::format("process {}, which keeps ranks, is silent: others are started", keeper_));
        return Answer::kSilent;
      }
      if (!taken_ && now_s() - begun_s > kNoticeS && !std::exchange(noticed_, true))
        listener_.warn("the ranks that stay are at work for another; this waits for its turn");
    }
    if (taken_) throw Error(ExitCode::kRank, "the ranks that stayed are gone", {}, "the same command again");
    return Answer::kGone;
  }

 private:
  // Appends to heard_; false once the other end is closed.
  bool listen() {
    if (stop_.signal() != 0) {
      if (!taken_) stop_.check();
      if (stopped_s_ == 0) channel_.send({{"stop", stop_.signal()}});
      if (stopped_s_ == 0) stopped_s_ = now_s();
      if (now_s() - stopped_s_ > kCancelGraceS) stop_.check();
    }
    pollfd readable{channel_.descriptor(), POLLIN, 0};
    if (::poll(&readable, 1, kLookMs) > 0) heard_s_ = now_s();
    listener_.tick();
    return channel_.receive(heard_) || !heard_.empty();
  }

  [[nodiscard]] bool silent_for(double seconds) const { return now_s() - heard_s_ > seconds + kEndingS; }
  [[noreturn]] void fail_silent() const {
    throw Error(
        ExitCode::kRank,
        fmt::format("process {}, which keeps ranks, was silent for {:.3g} s", keeper_, now_s() - heard_s_),
        {}, fmt::format("kill -9 {}, or --set runtime.timeout=10m, if it only needs longer", keeper_));
  }

  // Whether it was the last.
  bool take(const json& message) {
    if (pass_on(message, listener_)) return false;
    if (const auto part = message.find("report"); part != message.end()) {
      add_report(*part, report_);
      return true;
    }
    if (!message.contains("error")) return false;
    stop_.check();
    throw error_of(message);
  }

  Channel channel_;
  pid_t keeper_;
  pipeline::Listener& listener_;
  const StopToken& stop_;
  output::Report& report_;
  std::vector<json> heard_;
  bool taken_ = false;
  bool noticed_ = false;
  double heard_s_ = 0;  // when it spoke last
  double stopped_s_ = 0;
};

// A folder that is missing or others can reach matters to those who keep ranks there.
std::optional<PrivateSocket> place_of(bool keeps) {
  try {
    return PrivateSocket(&std::getenv, keeps);
  } catch (const Error&) {
    if (keeps) throw;
    return std::nullopt;
  }
}

}  // namespace

void KeptRanks::make(const Task& task, const Models& models, const parallel::Plan& plan,
                     pipeline::Listener& listener, const StopToken& stop, output::Report& report) {
  const std::optional<PrivateSocket> place = place_of(keep_s_.has_value());
  const std::string identity = identity_of(task, plan);
  const auto meet = [&]() -> std::optional<Kept> {
    if (!place) return std::nullopt;
    const File lock = place->lock();
    if (std::optional<File> connection = place->connect()) {
      const pid_t keeper = peer_process(*connection);
      return Kept{.channel = Channel(std::move(*connection)), .process = keeper};
    }
    if (!keep_s_) return std::nullopt;
    return start_keeper(
        {.place = *place, .identity = identity, .models = models, .keep_s = *keep_s_, .stop = stop});
  };
  for (int meeting = 0; meeting < kMeetings; ++meeting) {
    std::optional<Kept> kept = meet();
    if (!kept) break;
    Joined joined(std::move(*kept), listener, stop, report);
    const Joined::Answer answer = joined.make(with_whole_paths(task), identity, keep_s_);
    if (answer == Joined::Answer::kDone) return;
    if (answer != Joined::Answer::kGone && !keep_s_) break;
  }
  Ranks().make(task, models, plan, listener, stop, report);
}

bool end_kept_ranks() {
  const std::optional<PrivateSocket> place = place_of(false);
  if (!place) return false;
  std::optional<File> connection;
  {
    const File lock = place->lock();
    connection = place->connect();
    if (!connection) place->remove();
  }
  if (!connection) return false;
  const pid_t keeper = peer_process(*connection);
  Channel channel(std::move(*connection));
  if (keeper > 0) ::kill(keeper, SIGTERM);
  std::vector<json> nothing;
  const double until_s = now_s() + kEndGraceS;
  while (channel.receive(nothing)) {
    if (now_s() > until_s)
      throw Error(ExitCode::kRank, fmt::format("process {} does not end", keeper), {},
                  fmt::format("kill -9 {}", keeper));
    pollfd readable{channel.descriptor(), POLLIN, 0};
    ::poll(&readable, 1, kLookMs);
  }
  return true;
}

}  // namespace xdit::launch
