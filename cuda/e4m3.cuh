#pragma once
#include <cuda_fp8.h>

#include <cstdint>

#include "cuda/vector.cuh"

namespace xdit::cuda {

/// `largest` becomes the largest magnitude of it and of `a` as T rounds it.
template <class T, int N>
__device__ inline void take_largest(const float (&a)[N], float& largest) {
#pragma unroll
  for (int j = 0; j < N; ++j) largest = fmaxf(largest, fabsf(to_float(from_float<T>(a[j]))));
}

/// A row in e4m3 with the scale that takes its largest magnitude to 448.
class E4m3Row {
 public:
  /// The scale is written by the block's first thread.
  __device__ E4m3Row(float largest, __nv_fp8_e4m3* values, float* scale) : values_(values) {
    constexpr float kLargest = 448;
    constexpr float kSmallest = 1e-30F;  // 448 over it is finite
    largest = fmaxf(largest, kSmallest);
    inverse_ = kLargest / largest;
    if (threadIdx.x == 0) *scale = largest / kLargest;
  }

  /// N values, as T rounds them.
  template <class T, int N>
  __device__ void store(int column, const float (&a)[N]) const {
    Vector<__nv_fp8_e4m3, N> quantised;
#pragma unroll
    for (int j = 0; j < N; ++j) quantised.values[j] = __nv_fp8_e4m3(to_float(from_float<T>(a[j])) * inverse_);
    *reinterpret_cast<Vector<__nv_fp8_e4m3, N>*>(values_ + column) = quantised;
  }

 private:
  __nv_fp8_e4m3* values_;
  float inverse_;
};

}  // namespace xdit::cuda
