#include "launch/supervisor.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "launch/clock.h"
#include "launch/messages.h"

namespace xdit::launch {
namespace {

using nlohmann::json;

constexpr int kPollMs = 200;         // a signal that arrives just before poll() waits so long
constexpr double kStopGraceS = 2.5;  // for a rank to end its step after Ctrl-C
constexpr double kTermGraceS = 2;
constexpr double kKillGraceS =
    5;  // a process in the kernel's hands (a driver that hangs) cannot be waited for

[[noreturn]] void fail(const std::string& what, const std::string& fix) {
  throw Error(ExitCode::kRank, what, {}, fix);
}

// A rank that fails so has come to no harm.
bool is_whole_after(ExitCode code) {
  return code != ExitCode::kRank && code != ExitCode::kDevice && code != ExitCode::kInternal;
}

}  // namespace

Supervisor::~Supervisor() {
  end(stopped_s_ > 0 ? 0 : kTermGraceS);
}

void Supervisor::start(const std::function<void(Channel, pid_t)>& life) {
  auto [ours, theirs] = Channel::make();
  const pid_t launcher = ::getpid();
  sigset_t all{};
  sigset_t before{};
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);  // none may meet this process's handlers in the new one
  const pid_t process = ::fork();
  if (process == 0) {
    std::signal(SIGINT, SIG_IGN);   // Ctrl-C reaches every process of the terminal: the launcher passes it on
    std::signal(SIGTERM, SIG_DFL);  // the launcher's way to end it
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (process < 0)
    throw Error(ExitCode::kRank, fmt::format("cannot start a rank: {}", std::strerror(errno)), {},
                "a higher limit of processes (ulimit -u)");
  if (process == 0) {
    children_.clear();  // the ends of other ranks
    { const Channel unused = std::move(ours); }
    try {
      life(std::move(theirs), launcher);
    } catch (...) {  // the launcher's caller must not run on here
    }
    ::_exit(1);
  }
  children_.push_back(
      {.rank = static_cast<std::int64_t>(children_.size()), .process = process, .channel = std::move(ours)});
}

void Supervisor::send(const json& message) const {
  for (const Child& child : children_) child.channel.send(message);
}

bool Supervisor::running() const {
  return std::any_of(children_.begin(), children_.end(), [](const Child& child) { return !child.gone; });
}

bool Supervisor::hold() const {
  return std::all_of(children_.begin(), children_.end(), [](const Child& child) { return child.holds; });
}

bool Supervisor::ready() {
  return !children_.empty() && std::all_of(children_.begin(), children_.end(), [](Child& child) {
    if (child.gone || !child.idle) return false;
    std::vector<json> late;
    bool open = child.channel.receive(late);
    while (open && !std::exchange(late, {}).empty()) open = child.channel.receive(late);
    return open;
  });
}

std::vector<double> Supervisor::wait(pipeline::Listener& listener, const StopToken& stop,
                                     output::Report& report, const Aside& aside) {
  warned_.clear();
  failure_.reset();
  culprit_.reset();
  stopped_s_ = 0;
  for (Child& child : children_) {
    child.phase = "start";
    child.heard_s = now_s();
    child.ended = child.idle = child.holds = false;
  }
  const auto at_work = [](const Child& child) { return !child.gone && !child.idle; };
  while (std::any_of(children_.begin(), children_.end(), at_work))
    poll_once({.listener = listener, .stop = stop, .report = report, .aside = aside});
  if (failure_) throw *failure_;
  const auto by_rank = [](const auto& a, const auto& b) { return a.rank < b.rank; };
  std::stable_sort(report.phases.begin(), report.phases.end(), by_rank);
  std::stable_sort(report.ranks.begin(), report.ranks.end(), by_rank);
  const bool cut_short = report.ranks.size() < children_.size();
  if (cut_short) stop.check();
  std::vector<double> over_s;
  for (const Child& child : children_) over_s.push_back(child.over_s);
  return over_s;
}

void Supervisor::tell_stop(int signal) {
  stopped_s_ = now_s();
  send({{"stop", signal}});
}

void Supervisor::poll_once(const Turn& turn) {
  if (turn.stop.signal() != 0 && stopped_s_ == 0) tell_stop(turn.stop.signal());
  if (stopped_s_ > 0 && now_s() - stopped_s_ > kStopGraceS) {
    if (failure_) throw *failure_;
    turn.stop.check();
  }

  std::vector<pollfd> readable;
  std::vector<Child*> asked;
  for (Child& child : children_)
    if (!child.gone) {
      readable.push_back({child.channel.descriptor(), POLLIN, 0});
      asked.push_back(&child);
    }
  readable.push_back({turn.aside.descriptor, POLLIN, 0});
  const double before = now_s();
  ::poll(readable.data(), readable.size(), kPollMs);
  const double slept = now_s() - before;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    Child& child = *asked[i];
    if (slept > 1) child.heard_s += slept;  // this process was stopped, and maybe its ranks with it
    if (readable[i].revents != 0) {
      child.heard_s = now_s();
      std::vector<json> messages;
      const bool open = child.channel.receive(messages);
      for (const json& message : messages) hear(child, message, turn);
      if (!open) bury(child, turn);
    } else if (!child.idle && now_s() - child.heard_s > timeout_s_) {
      culprit_ = child.rank;
      fail(fmt::format("rank {} was silent in {} for {:.3g} s", child.rank, child.phase, timeout_s_),
           "--set runtime.timeout=10m, if it only needs longer");
    }
  }
  turn.listener.tick();
  if (turn.aside.look) turn.aside.look();
}

Error Supervisor::of_child(const Child& child, const Error& error) const {
  if (children_.size() == 1) return error;
  return {error.code(), fmt::format("rank {} in {}: {}", child.rank, child.phase, error.message()),
          error.where(), error.fix()};
}

void Supervisor::hear(Child& child, const json& message, const Turn& turn) {
  if (const auto begin = message.find("begin"); begin != message.end())
    child.phase = begin->get<std::string>();
  if (const auto part = message.find("report"); part != message.end()) {
    child.ended = true;
    add_report(*part, turn.report);
  } else if (const auto holds = message.find("idle"); holds != message.end()) {
    child.idle = true;
    child.over_s = now_s();
    child.holds = holds->get<bool>();
  } else if (const auto line = message.find("warn"); line != message.end()) {
    if (warned_.insert(line->get<std::string>()).second) turn.listener.warn(line->get<std::string>());
  } else if (const auto failed = message.find("failed"); failed != message.end()) {
    return turn.listener.failed(failed->get<std::int64_t>(), of_child(child, error_of(message)));
  } else if (message.contains("picture") || child.rank == 0) {
    if (pass_on(message, turn.listener)) return;
  }
  if (!message.contains("error")) return;
  child.ended = true;
  if (turn.stop.signal() != 0 || failure_) return;  // the others end their steps too
  if (message.contains("after")) return;            // the cause lies in another channel already
  failure_ = of_child(child, error_of(message));
  culprit_ = child.rank;
  if (!stay_ || !is_whole_after(failure_->code())) throw *failure_;
  if (stopped_s_ == 0) tell_stop(SIGTERM);
}

// The other end is closed: the process has ended, or is about to.
void Supervisor::bury(Child& child, const Turn& turn) {
  int status = 0;
  while (::waitpid(child.process, &status, 0) < 0 && errno == EINTR) continue;
  child.gone = true;
  if (!child.idle) child.over_s = now_s();
  if (child.ended || turn.stop.signal() != 0 || failure_) return;
  culprit_ = child.rank;
  const bool killed = WIFSIGNALED(status);
  fail(fmt::format("rank {} died in {} ({} {})", child.rank, child.phase, killed ? "signal" : "exit status",
                   killed ? WTERMSIG(status) : WEXITSTATUS(status)),
       killed && WTERMSIG(status) == SIGKILL
           ? "dmesg: the kernel kills what takes too much memory; then a smaller --size or fewer "
             "--gpus"
           : "the same command again; if it dies again, report it");
}

void Supervisor::end(double grace_s) noexcept {
  const auto signal_all = [this](int signal) {
    for (const Child& child : children_)
      if (!child.gone) ::kill(child.process, signal);
  };
  if (grace_s > 0) signal_all(SIGTERM);
  if (reap_all(now_s() + grace_s)) return;
  signal_all(SIGKILL);
  static_cast<void>(reap_all(now_s() + kKillGraceS));
}

bool Supervisor::reap_all(double until_s) noexcept {
  for (;;) {
    for (Child& child : children_) child.gone = child.gone || ::waitpid(child.process, nullptr, WNOHANG) != 0;
    if (!running()) return true;
    if (now_s() > until_s) return false;
    ::usleep(5000);
  }
}

}  // namespace xdit::launch
