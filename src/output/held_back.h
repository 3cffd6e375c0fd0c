#pragma once
#include <string>
#include <vector>

#include "output/report.h"

namespace xdit::output {

/// Something that kept a run from being over sooner.
struct Finding {
  /// "start" of processes and their end; "files": waiting for weights; "idle": without work of its own;
  /// "peers": waiting for other ranks in steps; "shares": less than the busiest rank had to do; "cpu":
  /// queueing steps took the host as long as making them took the device; "throttling": something held the
  /// clock down in steps.
  std::string what;
  double seconds = 0;  ///< for which it did
  double of = 0;       ///< seconds that these are among: of the run, or of a rank's steps
  std::string mend;    ///< what to try
};

/// From what ranks and the launcher measured, the longest first; nothing under a hundredth of the run, and
/// nothing of what was not measured.
[[nodiscard]] std::vector<Finding> held_back(const Report& report);

/// "files 1.80 of 6.91 s, throttling 3.10 of 3.52 s"
[[nodiscard]] std::string to_text(const std::vector<Finding>& findings);

}  // namespace xdit::output
