#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/activation.h"
#include "nn/weights.h"
#include "text/tables/clip.h"

namespace xdit::text {

/// What pipelines take of a prompt of T tokens.
struct ClipStates {
  at::Tensor last;         ///< [T, C], normed
  at::Tensor penultimate;  ///< [T, C] before the last layer, not normed
  at::Tensor pooled;       ///< [C] of `last` at the end token, or [P] of its projection
};

/// CLIP's text transformer (Radford et al. 2021; transformers CLIPTextModel, CLIPTextModelWithProjection).
/// The residual stream is float32.
class ClipEncoder {
 public:
  /// Takes its tensors from `weights`.
  ClipEncoder(const ClipConfig& config, const nn::Weights& weights);

  /// States of ids [T] (int64, on the weights' device), in the weights' dtype.
  [[nodiscard]] ClipStates encode(const at::Tensor& ids) const;

 private:
  struct Affine {
    at::Tensor weight, bias;
  };
  struct Layer {
    Affine norm1, qkv, out, norm2, fc1, fc2;
  };
  [[nodiscard]] at::Tensor norm(const at::Tensor& x, const Affine& layer) const;

  ClipConfig config_;
  nn::Activation activation_;
  at::Tensor tokens_;
  at::Tensor positions_;
  std::vector<Layer> layers_;
  Affine final_norm_;
  at::Tensor projection_;  // [P, C], undefined without one
};

}  // namespace xdit::text
