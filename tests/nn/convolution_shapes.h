#pragma once
#include <array>
#include <cstdint>
#include <set>

namespace xdit::test {

/// A convolution to so many rows of so many columns' input.
struct ConvolutionShape {
  std::int64_t inputs, outputs, kernel, rows, columns;
  std::int64_t stride = 1;
  [[nodiscard]] std::int64_t input_rows(std::int64_t count) const { return (count - 1) * stride + kernel; }
};
/// FLUX's decoder's at 1024 x 1024.
inline constexpr std::array<ConvolutionShape, 13> kVaeShapes{{{16, 512, 3, 128, 128},
                                                              {4, 512, 3, 128, 128},
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

/// SDXL's UNet's at 1024 x 1024, and Stable Diffusion's at 512 x 512.
inline constexpr std::array<ConvolutionShape, 27> kUnetShapes{
    {{4, 320, 3, 128, 128},   {320, 320, 3, 128, 128},  {640, 320, 3, 128, 128},   {960, 320, 3, 128, 128},
     {320, 4, 3, 128, 128},   {960, 320, 1, 128, 128},  {320, 320, 3, 64, 128, 2}, {320, 640, 3, 64, 64},
     {640, 640, 3, 64, 64},   {1280, 640, 3, 64, 64},   {1920, 640, 3, 64, 64},    {320, 640, 1, 64, 64},
     {640, 640, 3, 128, 128}, {640, 640, 3, 32, 64, 2}, {1280, 1280, 3, 64, 64},   {1280, 1280, 3, 32, 32},
     {2560, 1280, 3, 32, 32}, {2560, 1280, 1, 32, 32},  {1280, 1280, 3, 8, 16, 2}, {1280, 1280, 3, 8, 8},
     {320, 320, 3, 64, 64},   {960, 320, 3, 64, 64},    {640, 640, 3, 32, 32},     {1920, 640, 3, 32, 32},
     {1280, 1280, 3, 16, 16}, {2560, 1280, 3, 16, 16},  {2560, 1280, 3, 8, 8}}};

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
