#pragma once
#include <type_traits>

#include "cuda/kernels.h"
#include "cuda/vector.cuh"

/// x += gate y, whichever kernel does it.
namespace xdit::cuda {

/// x + gate y, one rounding before T's; float16 saturates, the others cannot overflow here.
template <class T>
__device__ inline float gated_sum(float x, float gate, float y) {
  constexpr float kLargestHalf = 65504;
  const float sum = fmaf(gate, y, x);
  if constexpr (std::is_same_v<T, __half>)
    return sum > kLargestHalf ? kLargestHalf : sum < -kLargestHalf ? -kLargestHalf : sum;
  return sum;  // NaN passes
}

/// Whether gate and y can be read in vectors of N elements of T.
template <int N, class T>
inline bool aligned(const GatedUpdate& update, std::int64_t width) {
  return aligned<N, T>(update.gate, 0, width) && aligned<N, T>(update.y, update.y_stride, width);
}

}  // namespace xdit::cuda
