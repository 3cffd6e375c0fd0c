#include "cuda/kernels.h"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

// x Phi(x). Of 16 bits the normal distribution's tail comes from Abramowitz and Stegun 7.1.26, which puts
// gelu off by less than 4e-7: erff takes longer than the memory does.
template <class T>
__device__ float gelu(float x) {
  constexpr float kSqrtHalf = 0.70710678F;
  if constexpr (sizeof(T) > 2) return 0.5F * x * (1 + erff(x * kSqrtHalf));
  const float z = fabsf(x) * kSqrtHalf;
  const float t = __fdividef(1, fmaf(0.3275911F, z, 1));
  float sum = fmaf(1.061405429F, t, -1.453152027F);
  sum = fmaf(sum, t, 1.421413741F);
  sum = fmaf(sum, t, -0.284496736F);
  sum = fmaf(sum, t, 0.254829592F);
  const float tail = 0.5F * t * sum * __expf(-z * z);
  return x * (x < 0 ? tail : 1 - tail);
}

// Rows in blockIdx.y, columns in blockIdx.x: no division.
template <class T, int N>
__global__ void gated_gelu_kernel(const T* x, std::int64_t x_stride, T* y, std::int64_t rows, int width) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    float value[N];
    float gate[N];
    load<N>(x + row * x_stride + column, value);
    load<N>(x + row * x_stride + width + column, gate);
#pragma unroll
    for (int j = 0; j < N; ++j) value[j] *= gelu<T>(gate[j]);
    store<N>(y + row * width + column, value);
  }
}

}  // namespace

cudaError_t gated_gelu(Type type, const void* x, std::int64_t x_stride, void* y, std::int64_t rows,
                       std::int64_t width, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    constexpr int kThreads = 128;
    constexpr std::int64_t kMostRows = 4096;
    const auto launch = [&](auto kernel, int n) {
      const auto columns = static_cast<unsigned>((width + n * kThreads - 1) / (n * kThreads));
      const dim3 grid(columns, static_cast<unsigned>(rows < kMostRows ? rows : kMostRows));
      kernel<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(x), x_stride, static_cast<T*>(y), rows,
                                            static_cast<int>(width));
    };
    constexpr int kVector = 16 / sizeof(T);
    const bool vectors = aligned<kVector, T>(x, x_stride, width) && aligned<kVector, T>(y, width, width);
    vectors ? launch(gated_gelu_kernel<T, kVector>, kVector) : launch(gated_gelu_kernel<T, 1>, 1);
  });
}

}  // namespace xdit::cuda
