#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/activation.h"
#include "nn/weights.h"
#include "text/tables/clip.h"

namespace xdit::text {

/// CLIP's text transformer (Radford et al. 2021; transformers CLIPTextModel). The residual stream is float32.
class ClipEncoder {
 public:
  /// Takes its tensors from `weights`.
  ClipEncoder(const ClipConfig& config, const nn::Weights& weights);

  /// Pooled embedding [C] of ids [T] (int64, on the weights' device): the last layer, normed, at the end
  /// token.
  [[nodiscard]] at::Tensor pooled(const at::Tensor& ids) const;

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
};

}  // namespace xdit::text
