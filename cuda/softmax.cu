#include "cuda/kernels.h"
#include "cuda/rows.cuh"
#include "cuda/sums.cuh"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

template <class T, int N, int kHeld>
__global__ void __launch_bounds__(kRowThreads) softmax_numerators_kernel(SoftmaxNumerators arguments) {
  const std::int64_t index = blockIdx.x;
  const Row<float, N, kHeld> row(arguments.x + index * arguments.x_stride, static_cast<int>(arguments.width));
  float largest = -INFINITY;
  row.each([&](int, float(&a)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) largest = fmaxf(largest, a[j]);
  });
  largest = block_max(largest);
  T* const out = static_cast<T*>(arguments.y) + index * arguments.y_stride;
  float sum = 0;
  row.each([&](int column, float(&a)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) a[j] = expf(arguments.scale * (a[j] - largest));
    const Vector<T, N> y = rounded<T>(a);
    *reinterpret_cast<Vector<T, N>*>(out + column) = y;
    to_floats(y, a);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += a[j];
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) arguments.sums[index] = sum;
}

}  // namespace

cudaError_t softmax_numerators(Type type, const SoftmaxNumerators& arguments, cudaStream_t stream) {
  if (arguments.rows == 0) return cudaSuccess;
  const std::int64_t width = arguments.width;
  return dispatch(type, [&]<class T>(T) {
    const auto with_vectors = [&]<int N>(std::integral_constant<int, N>) {
      const auto launch = [&]<int kHeld>(std::integral_constant<int, kHeld>, int threads) {
        softmax_numerators_kernel<T, N, kHeld>
            <<<static_cast<unsigned>(arguments.rows), threads, 0, stream>>>(arguments);
      };
      // The scores of a picture of 1024 x 1024 stay in registers, too.
      constexpr std::int64_t kMost = 8 * N * kRowThreads;
      if (kMost / 2 < width && width <= kMost)
        launch(std::integral_constant<int, 8>{}, kRowThreads);
      else
        with_row_shape(width, N, launch);
    };
    constexpr int kVector = 4;
    aligned<kVector, float>(arguments.x, arguments.x_stride, width) &&
            aligned<kVector, T>(arguments.y, arguments.y_stride, width)
        ? with_vectors(std::integral_constant<int, kVector>{})
        : with_vectors(std::integral_constant<int, 1>{});
  });
}

}  // namespace xdit::cuda
