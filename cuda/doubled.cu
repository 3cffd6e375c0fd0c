#include "cuda/pictures.h"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

constexpr int kThreads = 256;

// A vector a thread; rows in blockIdx.y, pictures in blockIdx.z.
template <class T, int N>
__global__ void doubled_kernel(const T* x, std::int64_t x_stride, std::int64_t x_columns, T* y, Picture shape,
                               std::int64_t first) {
  const auto vectors = static_cast<int>(shape.channels / N);
  const int index = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const int column = index / vectors, channel = index % vectors * N;
  if (column >= shape.columns) return;
  const std::int64_t from = ((blockIdx.y + first) / 2 * x_columns + column / 2) * shape.channels + channel;
  const std::int64_t to =
      ((blockIdx.z * shape.rows + blockIdx.y) * shape.columns + column) * shape.channels + channel;
  *reinterpret_cast<Vector<T, N>*>(y + to) =
      *reinterpret_cast<const Vector<T, N>*>(x + blockIdx.z * x_stride + from);
}

}  // namespace

cudaError_t doubled(Type type, const void* x, std::int64_t x_stride, std::int64_t x_columns, void* y,
                    const Picture& shape, std::int64_t first, cudaStream_t stream) {
  if (shape.pictures * shape.rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&](auto kernel, int n) {
      const dim3 grid(static_cast<unsigned>((shape.columns * (shape.channels / n) + kThreads - 1) / kThreads),
                      static_cast<unsigned>(shape.rows), static_cast<unsigned>(shape.pictures));
      kernel<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(x), x_stride, x_columns, static_cast<T*>(y),
                                            shape, first);
    };
    constexpr int kVector = 16 / sizeof(T);
    aligned<kVector, T>(x, x_stride, shape.channels) && aligned<kVector, T>(y, 0, shape.channels)
        ? launch(doubled_kernel<T, kVector>, kVector)
        : launch(doubled_kernel<T, 1>, 1);
  });
}

}  // namespace xdit::cuda
