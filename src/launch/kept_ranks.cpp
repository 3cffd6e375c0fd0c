#include "launch/kept_ranks.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>

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
constexpr int kMeetings = 5;  // with ranks that end just then

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
  enum class Answer : std::uint8_t { kDone, kOther, kGone };

  Joined(Channel channel, pipeline::Listener& listener, const StopToken& stop, output::Report& report)
      : channel_(std::move(channel)), listener_(listener), stop_(stop), report_(report) {}

  /// kOther and kGone: not begun. Those that end have ended when it returns.
  Answer make(const Task& task, const std::string& identity, const std::optional<double>& keep_s) {
    channel_.send({{"join", identity}, {"keep_s", keep_s ? json(*keep_s) : json()}});
    const double begun_s = now_s();
    while (listen()) {
      for (const json& message : std::exchange(heard_, {})) {
        if (message.contains("other")) {
          while (keep_s && listen()) heard_.clear();
          return Answer::kOther;
        }
        if (message.contains("taken")) {
          taken_ = true;
          channel_.send({{"task", json_of(task)}});
        } else if (take(message)) {
          return Answer::kDone;
        }
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
    ::poll(&readable, 1, kLookMs);
    return channel_.receive(heard_) || !heard_.empty();
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
  pipeline::Listener& listener_;
  const StopToken& stop_;
  output::Report& report_;
  std::vector<json> heard_;
  bool taken_ = false;
  bool noticed_ = false;
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
  const auto meet = [&]() -> std::optional<Channel> {
    if (!place) return std::nullopt;
    const File lock = place->lock();
    if (std::optional<File> connection = place->connect()) return Channel(std::move(*connection));
    if (!keep_s_) return std::nullopt;
    return start_keeper(
        {.place = *place, .identity = identity, .models = models, .keep_s = *keep_s_, .stop = stop});
  };
  for (int meeting = 0; meeting < kMeetings; ++meeting) {
    std::optional<Channel> channel = meet();
    if (!channel) break;
    Joined joined(std::move(*channel), listener, stop, report);
    const Joined::Answer answer = joined.make(with_whole_paths(task), identity, keep_s_);
    if (answer == Joined::Answer::kDone) return;
    if (answer == Joined::Answer::kOther && !keep_s_) break;
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
