#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace xdit::nn {

/// A convolution's parameters: weight [O, I, K, K], bias [O].
struct Convolution {
  at::Tensor weight;
  at::Tensor bias;
};

/// A group norm's parameters, each [C].
struct GroupNorm {
  at::Tensor weight;
  at::Tensor bias;
  std::int64_t groups = 0;
  double eps = 1e-6;
};

/// Operations on pictures [B, C, H, W] in which an output row depends on more rows than its own: where rows
/// are spread over ranks, these exchange halos, statistics and rows.
class Spatial {
 public:
  Spatial() = default;
  Spatial(const Spatial&) = delete;
  Spatial& operator=(const Spatial&) = delete;
  virtual ~Spatial() = default;
  /// Stride 1, zero padding of K / 2.
  [[nodiscard]] virtual at::Tensor convolve(const at::Tensor& x, const Convolution& layer) const = 0;
  /// Followed by SiLU if `silu`.
  [[nodiscard]] virtual at::Tensor group_norm(const at::Tensor& x, const GroupNorm& layer,
                                              bool silu) const = 0;
  /// [B, H * W, C] of the whole picture from this rank's rows of it.
  [[nodiscard]] virtual at::Tensor gather_tokens(const at::Tensor& tokens) const = 0;
};

/// All rows are on this rank.
class LocalSpatial final : public Spatial {
 public:
  [[nodiscard]] at::Tensor convolve(const at::Tensor& x, const Convolution& layer) const override;
  [[nodiscard]] at::Tensor group_norm(const at::Tensor& x, const GroupNorm& layer, bool silu) const override;
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& tokens) const override { return tokens; }
};

}  // namespace xdit::nn
