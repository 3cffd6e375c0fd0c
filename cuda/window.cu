#include "cuda/pictures.h"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

constexpr int kThreads = 256;

// A vector a thread; rows in blockIdx.y, pictures in blockIdx.z.
template <class T, int N>
__global__ void window_kernel(const T* x, T* y, Window arguments) {
  const Picture& shape = arguments.shape;
  const auto vectors = static_cast<int>(shape.channels / N);
  const int index = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const int column = index / vectors, channel = index % vectors * N;
  if (column >= shape.columns) return;
  const std::int64_t row = arguments.first + blockIdx.y;
  Vector<T, N> values{};
  if (row >= 0 && row < arguments.end)
    values = *reinterpret_cast<const Vector<T, N>*>(
        x + blockIdx.z * arguments.x_stride +
        (row / arguments.scale * arguments.x_columns + column / arguments.scale) * shape.channels + channel);
  *reinterpret_cast<Vector<T, N>*>(
      y + ((blockIdx.z * shape.rows + blockIdx.y) * shape.columns + column) * shape.channels + channel) =
      values;
}

}  // namespace

cudaError_t window(Type type, const void* x, void* y, const Window& arguments, cudaStream_t stream) {
  const Picture& shape = arguments.shape;
  if (shape.pictures * shape.rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&](auto kernel, int n) {
      const dim3 grid(static_cast<unsigned>((shape.columns * (shape.channels / n) + kThreads - 1) / kThreads),
                      static_cast<unsigned>(shape.rows), static_cast<unsigned>(shape.pictures));
      kernel<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(x), static_cast<T*>(y), arguments);
    };
    constexpr int kVector = 16 / sizeof(T);
    aligned<kVector, T>(x, arguments.x_stride, shape.channels) && aligned<kVector, T>(y, 0, shape.channels)
        ? launch(window_kernel<T, kVector>, kVector)
        : launch(window_kernel<T, 1>, 1);
  });
}

}  // namespace xdit::cuda
