#pragma once
#include <cstdint>

/// Kernels with a block a row.
namespace xdit::cuda {

/// Threads of a block for a row of `width` in vectors of `n`: enough, in whole warps, at most 512.
inline int threads_for(std::int64_t width, int n) {
  const std::int64_t vectors = (width + n - 1) / n;
  return static_cast<int>(vectors >= 512 ? 512 : (vectors + 31) / 32 * 32);
}

}  // namespace xdit::cuda
