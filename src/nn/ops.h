#pragma once
#include <ATen/core/Tensor.h>

#include "nn/activation.h"
#include "nn/attention.h"
#include "nn/quantise.h"

/// Operations that are one kernel on a GPU (cuda/) and a few Torch calls elsewhere. All compute in float32
/// and round once, to the dtype of their input.
namespace xdit::nn {

/// gate y, which is added to rows: gate [C], y [T, C]. Undefined: nothing is.
struct GatedUpdate {
  at::Tensor gate, y;
};
/// x += gate y in place: x [T, C]. Saturates in float16, as diffusers clips the residual stream.
void add_gated(const at::Tensor& x, const GatedUpdate& update);

/// layer_norm(x) (1 + scale) + shift over the last dimension: x [T, C], shift and scale [C]; quantised where
/// a linear will ask for that. With an update, that of x after add_gated.
[[nodiscard]] Rows modulated_rows(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                                  bool quantised, const GatedUpdate& update = {}, double eps = 1e-6);

/// layer_norm(x) weight + bias (Ba et al. 2016): x [T, C], weight and bias [C].
[[nodiscard]] at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                    double eps);

/// value gelu(gate) (GEGLU, Shazeer 2020), with the exact gelu: x [T, 2 C] holds values, then gates.
[[nodiscard]] at::Tensor gated_gelu(const at::Tensor& x);

/// The numerators of softmax(scale x) up to a factor a row: exp(scale (x - the row's largest)), x [T, S] in
/// float32, into `out` [T, S]; both may be strided, scale is positive. Returns the sums [T] of out's rows, as
/// they are rounded, in float32. On a GPU a row's bits depend on no other row.
[[nodiscard]] at::Tensor softmax_numerators(const at::Tensor& out, const at::Tensor& x, double scale);

/// RMS norm over D and rotation of the first two of qkv [T, 3, H, D] by `rotary` [T, D / 2, 2]: q into q
/// [T, H, D]; k, and v as it is, into `places` (RotatedTokens) of the T tokens.
void norm_and_rotate(const at::Tensor& qkv, const TokenNorms& norms, const at::Tensor& rotary,
                     const at::Tensor& q, at::TensorList places, double eps = 1e-6);

/// act(x) of rows [T, C], which may be strided, into `out` [T, C].
void activate_into(const at::Tensor& out, const at::Tensor& x, Activation activation);

/// RMS norm over the last dimension (Zhang & Sennrich 2019): x [..., C], weight [C].
[[nodiscard]] at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// As diffusers' get_timestep_embedding takes them.
struct TimestepEmbedding {
  std::int64_t width = 0;  ///< even
  bool cosine_first = true;
  double frequency_shift = 0;  ///< frequency i is 10000^(-i / (width / 2 - shift))
};
/// sin-cos embedding of `times` [N] -> [N, width] (Vaswani et al. 2017) in float32.
[[nodiscard]] at::Tensor timestep_embedding(const at::Tensor& times, const TimestepEmbedding& embedding);

/// The Torch forms that the kernels are tested against.
namespace reference {
[[nodiscard]] at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& shift,
                                              const at::Tensor& scale, double eps);
[[nodiscard]] at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                    double eps);
[[nodiscard]] at::Tensor gated_gelu(const at::Tensor& x);
void add_gated(const at::Tensor& x, const GatedUpdate& update);
[[nodiscard]] at::Tensor softmax_numerators(const at::Tensor& out, const at::Tensor& x, double scale);
void norm_and_rotate(const at::Tensor& qkv, const TokenNorms& norms, const at::Tensor& rotary,
                     const at::Tensor& q, at::TensorList places, double eps);
}  // namespace reference

}  // namespace xdit::nn
