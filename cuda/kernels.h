#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

/// Launchers of the device code. Pointers are device memory, strides count elements, rows of a tensor follow
/// each other at its row stride and are contiguous themselves. Each returns the launch's error.
namespace xdit::cuda {

enum class Type : std::uint8_t { kF32, kF16, kBF16 };

/// gate y, which is added to rows [rows, width].
struct GatedUpdate {
  const void* gate;  ///< [width]
  const void* y;     ///< [rows, width] at y_stride; null: nothing is added
  std::int64_t y_stride;
};
/// x += gate y, saturating in float16: x [rows, width] at x_stride.
cudaError_t add_gated(Type type, void* x, std::int64_t x_stride, const GatedUpdate& update, std::int64_t rows,
                      std::int64_t width, cudaStream_t stream);

struct LayerNorm {
  void* x;  ///< [rows, width] at x_stride; written where there is an update
  std::int64_t x_stride;
  GatedUpdate update;
  const void* shift;  ///< [width]
  const void* scale;  ///< [width]
  float base;
  void* y;        ///< [rows, width] packed
  float* scales;  ///< [rows]: y is quantised as by quantise_rows; null: it is of x's type
  std::int64_t rows, width;
  float eps;
};
/// y = layer_norm(x) (base + scale) + shift. With an update, that after add_gated, bit for bit: in one pass
/// if the update is aligned as the rest is.
cudaError_t layer_norm(Type type, const LayerNorm& arguments, cudaStream_t stream);

/// y = value gelu(gate), the exact one: x [rows, 2 width] at x_stride holds values, then gates; y
/// [rows, width] packed.
cudaError_t gated_gelu(Type type, const void* x, std::int64_t x_stride, void* y, std::int64_t rows,
                       std::int64_t width, cudaStream_t stream);

struct SoftmaxNumerators {
  const float* x;  ///< [rows, width] at x_stride
  std::int64_t x_stride;
  float scale;  ///< positive
  void* y;      ///< [rows, width] at y_stride
  std::int64_t y_stride;
  float* sums;  ///< [rows]
  std::int64_t rows, width;
};
/// y = exp(scale (x - the row's largest)) in `type`, sums what y's rows, as they are rounded, add up to. A
/// row's bits depend on no other row.
cudaError_t softmax_numerators(Type type, const SoftmaxNumerators& arguments, cudaStream_t stream);

/// values * scales = x in e4m3: x [rows, width] at x_stride, values [rows, width] packed, a byte each, scales
/// [rows]. A row's scale takes its largest magnitude to 448.
cudaError_t quantise_rows(Type type, const void* x, std::int64_t x_stride, void* values, float* scales,
                          std::int64_t rows, std::int64_t width, cudaStream_t stream);

struct NormAndRotate {
  const void* qkv;  ///< [tokens, 3, heads, head_dim] at token_stride
  std::int64_t token_stride;
  const void* query_norm;  ///< [head_dim]
  const void* key_norm;    ///< [head_dim]
  const float* rotary;     ///< [tokens, head_dim / 2, 2]: cosine, sine
  void* q;                 ///< [tokens, heads, head_dim], packed
  struct Keys {
    void* k;  ///< [tokens, heads, head_dim], packed
    void* v;  ///< likewise, the values as they are; null: they stay where they are
    std::int64_t tokens;
  } keys[2];                     ///< of the tokens in turn
  std::int64_t heads, head_dim;  ///< head_dim is even
  float eps;
};
/// RMS norm of q and k over head_dim and rotation by `rotary`.
cudaError_t norm_and_rotate(Type type, const NormAndRotate& arguments, cudaStream_t stream);

/// Makes kernels of a captured graph's small fills: between two kernels a memory node costs some 8 us, a
/// kernel 1.5, and cuBLASLt and cuDNN ask for one before each of theirs that deals out its tiles. Those of
/// zeros into `counters`, bytes which each one kernel uses, become one fill at the graph's begin.
cudaError_t fill_by_kernels(cudaGraph_t graph, void* counters, std::size_t bytes);

}  // namespace xdit::cuda
