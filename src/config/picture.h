#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace xdit::config {

/// One picture of a run: prompt-major, then seed, then count.
struct Picture {
  std::int64_t index;  ///< 0-based over the run
  std::string prompt;
  std::uint64_t seed;
  std::size_t variant = 0;  ///< of the run's
  friend bool operator==(const Picture&, const Picture&) = default;
};

}  // namespace xdit::config
