#include "cuda/add_gated.cuh"
#include "cuda/e4m3.cuh"
#include "cuda/kernels.h"
#include "cuda/rows.cuh"
#include "cuda/sums.cuh"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

template <class T, int N, int kHeld, bool kQuantised, bool kUpdated>
__global__ void __launch_bounds__(kRowThreads) layer_norm_kernel(LayerNorm arguments) {
  const std::int64_t index = blockIdx.x;
  const auto width = static_cast<int>(arguments.width);
  T* const x = static_cast<T*>(arguments.x) + index * arguments.x_stride;
  Row<T, N, kHeld> row(x, width);
  if constexpr (kUpdated) {
    const GatedUpdate& update = arguments.update;
    const Row<T, N, kHeld> y(static_cast<const T*>(update.y) + index * update.y_stride, width);
    row.update(x, y, [&](int column, float(&a)[N], const float(&b)[N]) {
      float gate[N];
      load<N>(static_cast<const T*>(update.gate) + column, gate);
#pragma unroll
      for (int j = 0; j < N; ++j) a[j] = gated_sum<T>(a[j], gate[j], b[j]);
    });
  }
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

template <int N, class T>
bool in_vectors(const LayerNorm& arguments) {
  const std::int64_t width = arguments.width;
  return aligned<N, T>(arguments.x, arguments.x_stride, width) && aligned<N, T>(arguments.shift, 0, width) &&
         aligned<N, T>(arguments.scale, 0, width) && aligned<N, T>(arguments.y, width, width);
}

template <bool kUpdated>
cudaError_t launch(Type type, const LayerNorm& arguments, cudaStream_t stream) {
  return dispatch(type, [&]<class T>(T) {
    const auto with_vectors = [&]<int N>(std::integral_constant<int, N>) {
      with_row_shape(arguments.width, N, [&]<int kHeld>(std::integral_constant<int, kHeld>, int threads) {
        const auto kernel = arguments.scales != nullptr ? layer_norm_kernel<T, N, kHeld, true, kUpdated>
                                                        : layer_norm_kernel<T, N, kHeld, false, kUpdated>;
        kernel<<<static_cast<unsigned>(arguments.rows), threads, 0, stream>>>(arguments);
      });
    };
    constexpr int kVector = 16 / sizeof(T);
    in_vectors<kVector, T>(arguments) ? with_vectors(std::integral_constant<int, kVector>{})
                                      : with_vectors(std::integral_constant<int, 1>{});
  });
}

// The norm's vectors decide the order of its sums: an update takes the same ones, or is made before.
bool updates_alike(Type type, const LayerNorm& arguments) {
  bool alike = false;
  static_cast<void>(dispatch(type, [&]<class T>(T) {
    constexpr int kVector = 16 / sizeof(T);
    alike = !in_vectors<kVector, T>(arguments) || aligned<kVector, T>(arguments.update, arguments.width);
  }));
  return alike;
}

}  // namespace

cudaError_t layer_norm(Type type, const LayerNorm& arguments, cudaStream_t stream) {
  if (arguments.rows == 0) return cudaSuccess;
  if (arguments.update.y == nullptr) return launch<false>(type, arguments, stream);
  if (updates_alike(type, arguments)) return launch<true>(type, arguments, stream);
  const cudaError_t error = add_gated(type, arguments.x, arguments.x_stride, arguments.update, arguments.rows,
                                      arguments.width, stream);
  return error == cudaSuccess ? launch<false>(type, arguments, stream) : error;
}

}  // namespace xdit::cuda
