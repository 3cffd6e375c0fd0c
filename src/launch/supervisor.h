#pragma once
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/stop.h"
#include "launch/channel.h"
#include "output/report.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// What is looked at besides ranks while they work.
struct Aside {
  int descriptor = -1;           ///< wakes the launcher when it can be read; -1: none
  std::function<void()> look{};  ///< called then, and a few times a second
};

/// Rank processes that are watched while they work on a task. The first failure (a rank's Error, a death,
/// `timeout_s` of silence) ends the task on the others and is the Error that wait() throws. Used from one
/// thread, in a process that has no other.
class Supervisor {
 public:
  /// `stay`: ranks outlive a task that fails where that leaves them whole; else a failure ends them.
  Supervisor(double timeout_s, bool stay) : timeout_s_(timeout_s), stay_(stay) {}
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;
  ~Supervisor();  ///< ends what still runs: TERM, two seconds later KILL

  /// Forks the next rank, deaf to SIGINT. `life` is called in the new process, with the rank's end and the
  /// launcher's id, and must not return.
  void start(const std::function<void(Channel channel, pid_t launcher)>& life);
  void send(const nlohmann::json& message) const;  ///< to every rank

  /// Until the task is over on every rank. Passes on what ranks tell (progress of rank 0; pictures and
  /// warnings of all, each warning once) and adds their phases and use to `report`. A requested stop reaches
  /// ranks between two of their steps. Returns when each rank was over, on now_s's clock.
  std::vector<double> wait(pipeline::Listener& listener, const StopToken& stop, output::Report& report,
                           const Aside& aside = {});

  [[nodiscard]] std::size_t ranks() const { return children_.size(); }
  /// Whose failure the last wait() threw.
  [[nodiscard]] std::optional<std::int64_t> culprit() const { return culprit_; }
  /// Whether all ranks live and wait for a task.
  [[nodiscard]] bool ready();
  /// Whether all of them hold the networks of the task before.
  [[nodiscard]] bool hold() const;

 private:
  struct Child {
    std::int64_t rank;
    pid_t process;
    Channel channel;
    std::string phase{};  ///< the last that began
    double heard_s = 0;   ///< when it spoke last
    double over_s = 0;    ///< when it became idle or was gone
    bool ended = false;   ///< said that the task is over
    bool idle = false;    ///< waits for the next
    bool holds = false;   ///< the task's networks
    bool gone = false;    ///< reaped
  };
  struct Turn {
    pipeline::Listener& listener;
    const StopToken& stop;
    output::Report& report;
    const Aside& aside;
  };

  [[nodiscard]] bool running() const;
  void poll_once(const Turn& turn);
  void tell_stop(int signal);
  void hear(Child& child, const nlohmann::json& message, const Turn& turn);
  /// Says whose it is, where there are several.
  [[nodiscard]] Error of_child(const Child& child, const Error& error) const;
  void bury(Child& child, const Turn& turn);
  void end(double grace_s) noexcept;
  [[nodiscard]] bool reap_all(double until_s) noexcept;

  double timeout_s_;
  bool stay_;
  std::vector<Child> children_;
  std::set<std::string> warned_;
  std::optional<Error> failure_;  ///< of a task that is being ended
  std::optional<std::int64_t> culprit_;
  double stopped_s_ = 0;  ///< when ranks were told to stop
};

}  // namespace xdit::launch
