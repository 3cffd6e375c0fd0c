#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace xdit::nn {

/// How a kernel cuts a product y [rows, outputs] into tiles, one at a time on each multiprocessor.
struct ProductTile {
  std::int64_t outputs = 0;
  std::int64_t rows = 0;
  /// All of its warps work on one tile, so that nothing is multiplied while it is written; the others' take
  /// turns with two tiles.
  bool cooperative = false;
};

struct ProductShape {
  std::int64_t rows = 0;
  std::int64_t inputs = 0;
  std::int64_t outputs = 0;
};

/// The index of the best of `tiles`, which are cuBLASLt's guesses, best first, for a product in 16 bits; 0
/// where none is known to be better than the first. cuBLASLt (13.0) makes little of what kernels whose warps
/// take turns win where sums are short: an H200 is 3 to 26 % faster in 22 products of SDXL and Stable
/// Diffusion 1.5, and nowhere more than 2 % slower. Of large tiles it makes little of how evenly the
/// multiprocessors share them, nothing of what they cost at the limit of energy: on an H200 that
/// 700 W hold down FLUX's step is 0.9 % (1024 x 1024) to 1.8 % (2048 x 2048) shorter. Fewer rows than 4096
/// and other models' long sums follow the rule, unmeasured.
[[nodiscard]] std::size_t best_tile(std::span<const ProductTile> tiles, const ProductShape& shape,
                                    std::int64_t multiprocessors);

}  // namespace xdit::nn
