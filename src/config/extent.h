#pragma once
#include <cstdint>

namespace xdit::config {

/// Pixels along the two sides of a picture, or from its left and top.
struct Extent {
  std::int64_t width = 0;
  std::int64_t height = 0;
  friend bool operator==(const Extent&, const Extent&) = default;
};

}  // namespace xdit::config
