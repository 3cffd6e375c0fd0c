#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "config/run_spec.h"
#include "launch/task.h"
#include "parallel/plan_machine.h"

namespace xdit::launch {

/// Whose failure ended a task.
struct Culprit {
  std::int64_t rank = 0;
  std::string gpu;  ///< its UUID; "": a rank on the CPU
};

/// The GPUs of a run that is tried again after failures. Those that are gone, or have failed twice, are left
/// out where a smaller grid exists.
class Survivors {
 public:
  /// `machine`: as it was at first. Those that `spec` asks for.
  Survivors(const config::RunSpec& spec, const parallel::Machine& machine);

  /// Counts a failure; says who fails again and again, or "".
  [[nodiscard]] std::string failed(const Culprit& culprit);
  /// A line for each GPU that `machine`, as it is now, shows no more; each is told once.
  [[nodiscard]] std::vector<std::string> lost(const parallel::Machine& machine);
  /// `spec` on as many of those left as a grid takes; itself while none is out, or where no grid is smaller.
  [[nodiscard]] config::RunSpec take(config::RunSpec spec, const Models& models,
                                     const parallel::Machine& machine) const;

 private:
  struct Wanted {
    std::int64_t number;  ///< in the machine as it was
    parallel::Gpu gpu;
  };
  [[nodiscard]] std::string name_of(const std::string& uuid) const;

  std::vector<Wanted> wanted_;
  std::map<std::string, std::int64_t> failures_;  ///< by GPU, or by rank on the CPU
  std::set<std::string> out_;                     ///< UUIDs
};

}  // namespace xdit::launch
