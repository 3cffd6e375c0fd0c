#pragma once
#include <algorithm>
#include <utility>
#include <vector>

#include "output/report.h"

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

/// Of a phase; its own seconds are counted there.
[[nodiscard]] inline bool is_part(const Phase& phase) {
  return phase.name.find('.') != std::string::npos;
}

/// The rank that was at work last, which the others' ends do not hold up; -1: none was.
[[nodiscard]] inline std::int64_t last_at_work(const Report& report) {
  std::int64_t rank = -1;
  double end_s = 0;
  for (const Phase& phase : report.phases)
    if (phase.name != "finish" && !is_part(phase) && (rank < 0 || phase.end_s > end_s)) {
      rank = phase.rank;
      end_s = phase.end_s;
    }
  return rank;
}

/// From the first step's begin to the last one's end; empty, the end before the begin, without steps.
[[nodiscard]] inline Stretch span_of_steps(const Report& report) {
  Stretch span{report.wall_s, 0};
  for (const Phase& phase : report.phases)
    if (phase.name == "step")
      span = {std::min(span.first, phase.start_s), std::max(span.second, phase.end_s)};
  return span;
}

/// Of GPUs while steps ran.
[[nodiscard]] inline std::vector<Reading> readings_in_steps(const Report& report) {
  const auto [begin, end] = span_of_steps(report);
  std::vector<Reading> readings;
  for (const Reading& reading : report.readings)
    if (reading.at_s >= begin && reading.at_s <= end) readings.push_back(reading);
  return readings;
}

}  // namespace xdit::output
