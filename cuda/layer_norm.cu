#include "cuda/e4m3.cuh"
#include "cuda/kernels.h"
#include "cuda/rows.cuh"
#include "cuda/sums.cuh"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

template <class T, int N, int kHeld, bool kQuantised>
__global__ void __launch_bounds__(kRowThreads) layer_norm_kernel(LayerNorm arguments) {
  const std::int64_t index = blockIdx.x;
  const auto width = static_cast<int>(arguments.width);
  const Row<T, N, kHeld> row(static_cast<const T*>(arguments.x) + index * arguments.x_stride, width);
  float sum = 0;
  row.each([&](int, float(&a)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) sum += a[j];
  });
  const float mean = block_sum(sum) / static_cast<float>(width);
  float squares = 0;
  row.each([&](int, float(&a)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) squares += (a[j] - mean) * (a[j] - mean);
  });
  const float inverse = rsqrtf(block_sum(squares) / static_cast<float>(width) + arguments.eps);
  const auto normed = [&](auto&& write) {
    row.each([&](int column, float(&a)[N]) {
      float multiply[N];
      float add[N];
      load<N>(static_cast<const T*>(arguments.scale) + column, multiply);
      load<N>(static_cast<const T*>(arguments.shift) + column, add);
#pragma unroll
      for (int j = 0; j < N; ++j) a[j] = (a[j] - mean) * inverse * (arguments.base + multiply[j]) + add[j];
      write(column, a);
    });
  };
  if constexpr (kQuantised) {
    float largest = 0;
    normed([&](int, float(&a)[N]) { take_largest<T>(a, largest); });
    const E4m3Row out(block_max(largest), static_cast<__nv_fp8_e4m3*>(arguments.y) + index * width,
                      arguments.scales + index);
    normed([&](int column, float(&a)[N]) { out.template store<T>(column, a); });
  } else {
    T* out = static_cast<T*>(arguments.y) + index * width;
    normed([&](int column, float(&a)[N]) { store<N>(out + column, a); });
  }
}

}  // namespace

cudaError_t layer_norm(Type type, const LayerNorm& arguments, cudaStream_t stream) {
  if (arguments.rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&]<int N>(std::integral_constant<int, N>) {
      with_row_shape(arguments.width, N, [&]<int kHeld>(std::integral_constant<int, kHeld>, int threads) {
        const auto kernel = arguments.scales != nullptr ? layer_norm_kernel<T, N, kHeld, true>
                                                        : layer_norm_kernel<T, N, kHeld, false>;
        kernel<<<static_cast<unsigned>(arguments.rows), threads, 0, stream>>>(arguments);
      });
    };
    constexpr int kVector = 16 / sizeof(T);
    const std::int64_t width = arguments.width;
    const bool vectors = aligned<kVector, T>(arguments.x, arguments.x_stride, width) &&
                         aligned<kVector, T>(arguments.shift, 0, width) &&
                         aligned<kVector, T>(arguments.scale, 0, width) &&
                         aligned<kVector, T>(arguments.y, width, width);
    vectors ? launch(std::integral_constant<int, kVector>{}) : launch(std::integral_constant<int, 1>{});
  });
}

}  // namespace xdit::cuda
