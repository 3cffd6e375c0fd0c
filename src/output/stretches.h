#pragma once
#include <algorithm>
#include <utility>
#include <vector>

namespace xdit::output {

using Stretch = std::pair<double, double>;  ///< seconds from and to

/// Seconds that at least one stretch covers; times before 0 do not count.
[[nodiscard]] inline double covered(std::vector<Stretch> stretches) {
  std::sort(stretches.begin(), stretches.end());
  double sum = 0;
  double end = 0;
  for (const auto& [from, to] : stretches) {
    sum += std::max(0.0, to - std::max(from, end));
    end = std::max(end, to);
  }
  return sum;
}

}  // namespace xdit::output
