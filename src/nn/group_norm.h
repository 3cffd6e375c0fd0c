#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "nn/weights.h"

namespace xdit::nn {

/// A group norm's parameters (Wu & He 2018), weight and bias [C].
struct GroupNorm {
  at::Tensor weight;
  at::Tensor bias;
  std::int64_t groups = 0;
  double eps = 1e-6;
  at::Tensor shift = {};  ///< [B, C], added to the pictures first, unrounded; or undefined
};
[[nodiscard]] GroupNorm read_group_norm(const Weights& weights, const std::string& name, std::int64_t groups,
                                        double eps);

/// The steps of a group norm of pictures [B, C, H, W], by rows: whoever holds which rows, the bits are the
/// same. All compute in float32.
/// [B, h, G, 2] of the rows that are here, shifted: mean and sum of squared differences from it of each row's
/// groups.
[[nodiscard]] at::Tensor row_moments(const at::Tensor& x, const GroupNorm& layer);
/// [B, G, 2]: mean and variance of whole pictures from all their rows [B, H, G, 2] of `row_elements` each,
/// merged (Chan et al. 1979) in one binary tree over the rows, which overwrites them.
[[nodiscard]] at::Tensor merge_rows(const at::Tensor& rows, std::int64_t row_elements);
/// `out` = x, shifted, normalised by `whole` [B, G, 2], weighted, and its SiLU if asked for; rounded once.
/// `out` lies in `padded` [B, C, h + 2 margin, W] between `margin` rows of zeros; pictures may lie apart.
void normalise(const at::Tensor& x, const at::Tensor& whole, const GroupNorm& layer, bool silu,
               const at::Tensor& padded, std::int64_t margin = 0);

/// All of it for whole pictures [B, C, H, W], with the same bits: `padded` [B, C, H + 2 margin, W] gets them
/// with `margin` rows of zeros above and below.
void group_norm(const at::Tensor& x, const GroupNorm& layer, bool silu, const at::Tensor& padded,
                std::int64_t margin);
void zero_margin(const at::Tensor& padded, std::int64_t margin);

/// The Torch forms that the kernels are tested against.
namespace reference {
[[nodiscard]] at::Tensor row_moments(const at::Tensor& x, const GroupNorm& layer);
[[nodiscard]] at::Tensor merge_rows(const at::Tensor& rows, std::int64_t row_elements);
void normalise(const at::Tensor& x, const at::Tensor& whole, const GroupNorm& layer, bool silu,
               const at::Tensor& out);
}  // namespace reference

}  // namespace xdit::nn
