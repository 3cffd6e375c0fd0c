#include <cuda_fp8.h>

#include "cuda/kernels.h"
#include "cuda/rows.cuh"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

constexpr float kLargest = 448;      // of e4m3
constexpr float kSmallest = 1e-30F;  // 448 over it is finite

// The block's largest, the same in all its threads.
__device__ float block_max(float x) {
  __shared__ float partial[32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, offset));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  x = partial[0];
  for (int i = 1; i < static_cast<int>(blockDim.x / 32); ++i) x = fmaxf(x, partial[i]);
  return x;
}

// A block a row, which is read twice, the second time out of the cache.
template <class T, int N>
__global__ void __launch_bounds__(512)
    quantise_rows_kernel(const T* x, std::int64_t x_stride, __nv_fp8_e4m3* values, float* scales, int width) {
  const T* row = x + static_cast<std::int64_t>(blockIdx.x) * x_stride;
  __nv_fp8_e4m3* out = values + static_cast<std::int64_t>(blockIdx.x) * width;
  const int step = static_cast<int>(blockDim.x) * N;
  const int first = static_cast<int>(threadIdx.x) * N;
  float a[N];
  float largest = kSmallest;
  for (int i = first; i < width; i += step) {
    load<N>(row + i, a);
#pragma unroll
    for (int j = 0; j < N; ++j) largest = fmaxf(largest, fabsf(a[j]));
  }
  largest = block_max(largest);
  const float inverse = kLargest / largest;
  for (int i = first; i < width; i += step) {
    load<N>(row + i, a);
    Vector<__nv_fp8_e4m3, N> quantised;
#pragma unroll
    for (int j = 0; j < N; ++j) quantised.values[j] = __nv_fp8_e4m3(a[j] * inverse);
    *reinterpret_cast<Vector<__nv_fp8_e4m3, N>*>(out + i) = quantised;
  }
  if (threadIdx.x == 0) scales[blockIdx.x] = largest / kLargest;
}

}  // namespace

cudaError_t quantise_rows(Type type, const void* x, std::int64_t x_stride, void* values, float* scales,
                          std::int64_t rows, std::int64_t width, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&](auto kernel, int n) {
      kernel<<<static_cast<unsigned>(rows), threads_for(width, n), 0, stream>>>(
          static_cast<const T*>(x), x_stride, static_cast<__nv_fp8_e4m3*>(values), scales,
          static_cast<int>(width));
    };
    constexpr int kVector = 16 / sizeof(T);
    const bool vectors =
        aligned<kVector, T>(x, x_stride, width) && reinterpret_cast<std::uintptr_t>(values) % kVector == 0;
    vectors ? launch(quantise_rows_kernel<T, kVector>, kVector) : launch(quantise_rows_kernel<T, 1>, 1);
  });
}

}  // namespace xdit::cuda
