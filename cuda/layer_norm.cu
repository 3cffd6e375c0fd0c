#include "cuda/kernels.h"
#include "cuda/rows.cuh"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

// A block a row. The row is read three times, twice out of the first-level cache: mean, variance, result.
template <class T, int N>
__global__ void __launch_bounds__(1024)
    layer_norm_kernel(const T* x, std::int64_t x_stride, const T* shift, const T* scale, float base, T* y,
                      int width, float eps) {
  const T* row = x + static_cast<std::int64_t>(blockIdx.x) * x_stride;
  const int step = static_cast<int>(blockDim.x) * N;
  const int first = static_cast<int>(threadIdx.x) * N;
  float a[N];
  float sum = 0;
  for (int i = first; i < width; i += step) {
    load<N>(row + i, a);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += a[j];
  }
  const float mean = block_sum(sum) / static_cast<float>(width);
  float squares = 0;
  for (int i = first; i < width; i += step) {
    load<N>(row + i, a);
#pragma unroll
    for (int j = 0; j < N; ++j) squares += (a[j] - mean) * (a[j] - mean);
  }
  const float inverse = rsqrtf(block_sum(squares) / static_cast<float>(width) + eps);
  T* out = y + static_cast<std::int64_t>(blockIdx.x) * width;
  float multiply[N];
  float add[N];
  for (int i = first; i < width; i += step) {
    load<N>(row + i, a);
    load<N>(scale + i, multiply);
    load<N>(shift + i, add);
#pragma unroll
    for (int j = 0; j < N; ++j) a[j] = (a[j] - mean) * inverse * (base + multiply[j]) + add[j];
    store<N>(out + i, a);
  }
}

}  // namespace

cudaError_t layer_norm(Type type, const void* x, std::int64_t x_stride, const void* shift, const void* scale,
                       float base, void* y, std::int64_t rows, std::int64_t width, float eps,
                       cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&](auto kernel, int n) {
      kernel<<<static_cast<unsigned>(rows), threads_for(width, n), 0, stream>>>(
          static_cast<const T*>(x), x_stride, static_cast<const T*>(shift), static_cast<const T*>(scale),
          base, static_cast<T*>(y), static_cast<int>(width), eps);
    };
    constexpr int kVector = 16 / sizeof(T);
    const bool vectors = aligned<kVector, T>(x, x_stride, width) && aligned<kVector, T>(shift, 0, width) &&
                         aligned<kVector, T>(scale, 0, width) && aligned<kVector, T>(y, width, width);
    vectors ? launch(layer_norm_kernel<T, kVector>, kVector) : launch(layer_norm_kernel<T, 1>, 1);
  });
}

}  // namespace xdit::cuda
