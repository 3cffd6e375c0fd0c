#include "cuda/e4m3.cuh"
#include "cuda/kernels.h"
#include "cuda/rows.cuh"
#include "cuda/sums.cuh"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

template <class T, int N, int kHeld>
__global__ void __launch_bounds__(kRowThreads)
    quantise_rows_kernel(const T* x, std::int64_t x_stride, __nv_fp8_e4m3* values, float* scales, int width) {
  const std::int64_t index = blockIdx.x;
  const Row<T, N, kHeld> row(x + index * x_stride, width);
  float largest = 0;
  row.each([&](int, float(&a)[N]) { take_largest<T>(a, largest); });
  const E4m3Row out(block_max(largest), values + index * width, scales + index);
  row.each([&](int column, float(&a)[N]) { out.template store<T>(column, a); });
}

}  // namespace

cudaError_t quantise_rows(Type type, const void* x, std::int64_t x_stride, void* values, float* scales,
                          std::int64_t rows, std::int64_t width, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&]<int N>(std::integral_constant<int, N>) {
      with_row_shape(width, N, [&]<int kHeld>(std::integral_constant<int, kHeld>, int threads) {
        quantise_rows_kernel<T, N, kHeld><<<static_cast<unsigned>(rows), threads, 0, stream>>>(
            static_cast<const T*>(x), x_stride, static_cast<__nv_fp8_e4m3*>(values), scales,
            static_cast<int>(width));
      });
    };
    constexpr int kVector = 16 / sizeof(T);
    const bool vectors =
        aligned<kVector, T>(x, x_stride, width) && reinterpret_cast<std::uintptr_t>(values) % kVector == 0;
    vectors ? launch(std::integral_constant<int, kVector>{}) : launch(std::integral_constant<int, 1>{});
  });
}

}  // namespace xdit::cuda
