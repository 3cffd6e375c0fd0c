#pragma once
#include <array>
#include <cstdint>
#include <set>

namespace xdit::test {

/// A convolution of FLUX's decoder at 1024 x 1024.
struct VaeShape {
  std::int64_t inputs, outputs, kernel, rows, columns;
};
inline constexpr std::array<VaeShape, 12> kVaeShapes{{{16, 512, 3, 128, 128},
                                                      {512, 512, 3, 128, 128},
                                                      {512, 512, 3, 256, 256},
                                                      {512, 512, 3, 512, 512},
                                                      {512, 256, 3, 512, 512},
                                                      {512, 256, 1, 512, 512},
                                                      {256, 256, 3, 512, 512},
                                                      {256, 256, 3, 1024, 1024},
                                                      {256, 128, 3, 1024, 1024},
                                                      {256, 128, 1, 1024, 1024},
                                                      {128, 128, 3, 1024, 1024},
                                                      {128, 3, 3, 1024, 1024}}};

/// Heights of slabs when `rows` are cut in 2, 3, 5, 8 and unevenly.
inline std::set<std::int64_t> cut_heights(std::int64_t rows) {
  std::set<std::int64_t> heights;
  for (const std::int64_t parts : {2, 3, 5, 8}) heights.insert({rows / parts, (rows + parts - 1) / parts});
  for (const std::int64_t height : {1, 3, 37})
    if (height <= rows) heights.insert(height);
  heights.erase(0);
  return heights;
}

}  // namespace xdit::test
