#pragma once
#include <ATen/core/Tensor.h>

#include "nn/attention.h"
#include "nn/group_norm.h"
#include "nn/ops.h"
#include "nn/quantise.h"

namespace at::cuda {
struct CUDAGraph;
}

namespace xdit::nn {
struct Window;
}

/// The CUDA kernels of nn/ops.h, nn/group_norm.h and nn/spatial.h and the products of nn/linear.h. A build
/// without CUDA has fused_without_cuda.cpp in place of fused.cpp and gemm.cpp.
namespace xdit::nn::fused {

/// layer_norm(x) (base + scale) + shift, its rows quantised if asked for; after add_gated, if there is an
/// update.
[[nodiscard]] Rows layer_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                              double base, double eps, bool quantised = false,
                              const GatedUpdate& update = {});
[[nodiscard]] at::Tensor gated_gelu(const at::Tensor& x);
void add_gated(const at::Tensor& x, const GatedUpdate& update);
[[nodiscard]] at::Tensor softmax_numerators(const at::Tensor& out, const at::Tensor& x, double scale);
/// TokenAttention's, of q [B, H, T, D] and as many pictures' k, v. False, with nothing done, for many keys,
/// wide heads and float32.
[[nodiscard]] bool prompt_attention(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k,
                                    const at::Tensor& v, double scale);
void norm_and_rotate(const at::Tensor& qkv, const TokenNorms& norms, const at::Tensor& rotary,
                     const at::Tensor& q, at::TensorList places, double eps);
void quantise_rows(const at::Tensor& x, const Rows& rows);
/// gelu_tanh or nothing of x W^T + b, x [T, in], W [out, in], both quantised or neither, in `result`: the
/// dtype of x (bf16 where it is quantised), or float32 without bias and gelu. `tf32`: factors in float32 are
/// rounded to TF32. A row's bits do not depend on the other rows.
[[nodiscard]] at::Tensor linear(const Rows& x, const Rows& weight, const at::Tensor& bias, bool gelu_tanh,
                                at::ScalarType result, bool tf32 = false);
/// The same, bit for bit, into `out` [T, out], whose rows may be strided.
void linear_into(const at::Tensor& out, const Rows& x, const Rows& weight, const at::Tensor& bias,
                 bool gelu_tanh);
/// out += x W^T + b, rounded once where rows are aligned to 16 bytes.
void linear_onto(const at::Tensor& out, const Rows& x, const Rows& weight, const at::Tensor& bias,
                 bool tf32 = false);

/// Makes kernels of the small fills of a graph that is captured and not yet instantiated, one for all of the
/// words that its launches took from a Counters (cuda/kernels.h).
void fill_by_kernels(at::cuda::CUDAGraph& graph, const at::Tensor& counters);

/// Of channels-last pictures.
[[nodiscard]] at::Tensor row_moments(const at::Tensor& x, const GroupNorm& layer);
[[nodiscard]] at::Tensor merge_rows(const at::Tensor& rows, std::int64_t row_elements);
/// Between `margin` rows of zeros of `padded`.
void normalise(const at::Tensor& x, const at::Tensor& whole, const GroupNorm& layer, bool silu,
               const at::Tensor& padded, std::int64_t margin = 0);
/// Of a picture x, with whose first row row 0 of `of` begins.
[[nodiscard]] at::Tensor window(const at::Tensor& x, const Window& of);

}  // namespace xdit::nn::fused
