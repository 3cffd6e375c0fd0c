#include "cuda/add_gated.cuh"
#include "cuda/kernels.h"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

// Rows in blockIdx.y, columns in blockIdx.x: no division.
template <class T, int N>
__global__ void add_gated_kernel(T* x, std::int64_t x_stride, const T* gate, const T* y,
                                 std::int64_t y_stride, std::int64_t rows, int width) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  float g[N];
  load<N>(gate + column, g);
  for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    float a[N];
    float b[N];
    load<N>(x + row * x_stride + column, a);
    load<N>(y + row * y_stride + column, b);
#pragma unroll
    for (int j = 0; j < N; ++j) a[j] = gated_sum<T>(a[j], g[j], b[j]);
    store<N>(x + row * x_stride + column, a);
  }
}

}  // namespace

cudaError_t add_gated(Type type, void* x, std::int64_t x_stride, const GatedUpdate& update, std::int64_t rows,
                      std::int64_t width, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    constexpr int kThreads = 128;
    constexpr std::int64_t kMostRows = 4096;
    const auto launch = [&](auto kernel, int n) {
      const auto columns = static_cast<unsigned>((width + n * kThreads - 1) / (n * kThreads));
      const dim3 grid(columns, static_cast<unsigned>(rows < kMostRows ? rows : kMostRows));
      kernel<<<grid, kThreads, 0, stream>>>(static_cast<T*>(x), x_stride, static_cast<const T*>(update.gate),
                                            static_cast<const T*>(update.y), update.y_stride, rows,
                                            static_cast<int>(width));
    };
    constexpr int kVector = 16 / sizeof(T);
    const bool vectors = aligned<kVector, T>(x, x_stride, width) && aligned<kVector, T>(update, width);
    vectors ? launch(add_gated_kernel<T, kVector>, kVector) : launch(add_gated_kernel<T, 1>, 1);
  });
}

}  // namespace xdit::cuda
