#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "nn/convolution.h"
#include "nn/group_norm.h"

namespace xdit::nn {

/// Operations on pictures [B, C, h, W] in which an output row depends on more rows than its own. Where rows
/// are spread over ranks, only the three virtual functions know it; a row's bits do not depend on where it is
/// computed.
class Spatial {
 public:
  Spatial() = default;
  Spatial(const Spatial&) = delete;
  Spatial& operator=(const Spatial&) = delete;
  virtual ~Spatial() = default;

  /// With zeros around the picture, K / 2 of them.
  [[nodiscard]] at::Tensor convolve(const at::Tensor& x, const Convolution& layer) const;
  /// Of silu(group_norm(x)).
  [[nodiscard]] at::Tensor convolve_normed(const at::Tensor& x, const GroupNorm& norm,
                                           const Convolution& layer) const;
  /// Of x made twice as high and wide by repeating pixels.
  [[nodiscard]] at::Tensor convolve_doubled(const at::Tensor& x, const Convolution& layer) const;
  [[nodiscard]] at::Tensor group_norm(const at::Tensor& x, const GroupNorm& layer) const;
  /// [B, H * W, C] of the whole picture from this rank's rows of it. Valid until the next call.
  [[nodiscard]] virtual at::Tensor gather_tokens(const at::Tensor& tokens) const = 0;

 protected:
  /// [B, H, G, 2] of the whole picture from this rank's rows of it. Valid until the next call.
  [[nodiscard]] virtual at::Tensor gather_moments(const at::Tensor& rows) const = 0;
  /// Gives the first and last `halo` rows of `padded` the neighbours' rows, zeros at the picture's edges.
  virtual void fill_halo(const at::Tensor& padded, std::int64_t halo) const = 0;

 private:
  /// Mean and variance of the whole picture.
  [[nodiscard]] at::Tensor moments(const at::Tensor& x, std::int64_t groups) const;
  /// convolve() of what `write` writes into [B, C, rows, columns].
  template <class F>
  [[nodiscard]] at::Tensor convolve_written(const at::Tensor& like, std::int64_t scale,
                                            const Convolution& layer, F&& write) const;

  mutable Convolutions convolution_;
};

/// All rows are on this rank.
class LocalSpatial final : public Spatial {
 public:
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& tokens) const override { return tokens; }

 private:
  [[nodiscard]] at::Tensor gather_moments(const at::Tensor& rows) const override { return rows; }
  void fill_halo(const at::Tensor& padded, std::int64_t halo) const override;
};

}  // namespace xdit::nn
