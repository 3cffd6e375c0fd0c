#pragma once
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "core/stop.h"
#include "launch/channel.h"
#include "output/report.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// Rank processes of one run, watched until all have ended. The first failure (a rank's Error, a death,
/// `timeout_s` of silence) ends the others and is the Error that wait() throws. Used from one thread, in a
/// process that has no other.
class Supervisor {
 public:
  Supervisor(double timeout_s, pipeline::Listener& listener, const StopToken& stop)
      : timeout_s_(timeout_s), listener_(listener), stop_(stop) {}
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;
  ~Supervisor();  ///< ends what still runs: TERM, two seconds later KILL

  /// Forks the next rank, deaf to SIGINT. `life` is called in the new process, with the rank's end and the
  /// launcher's id, and must not return.
  void start(const std::function<void(Channel channel, pid_t launcher)>& life);

  /// Passes on what ranks tell (progress of rank 0; pictures and warnings of all, each warning once) and adds
  /// their phases and use to `report`. A requested stop reaches ranks between two of their steps.
  void wait(output::Report& report);

 private:
  struct Child {
    std::int64_t rank;
    pid_t process;
    Channel channel;
    std::string phase = "start";  ///< the last that began
    double heard_s;               ///< when it spoke last
    bool ended = false;           ///< said that it is over
    bool gone = false;            ///< reaped
  };

  [[nodiscard]] bool running() const;
  void poll_once(output::Report& report);
  void hear(Child& child, const nlohmann::json& message, output::Report& report);
  void bury(Child& child);
  void end(double grace_s) noexcept;
  [[nodiscard]] bool reap_all(double until_s) noexcept;

  double timeout_s_;
  pipeline::Listener& listener_;
  const StopToken& stop_;
  std::vector<Child> children_;
  std::set<std::string> warned_;
  double stopped_s_ = 0;  ///< when ranks were told to stop
};

}  // namespace xdit::launch
