#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/activation.h"
#include "nn/weights.h"
#include "text/tables/t5.h"

namespace xdit::text {

/// T5's encoder (Raffel et al. 2020; transformers T5EncoderModel). The residual stream is float32, and in
/// float16 so is the last product of an MLP, which overflows float16 in T5-XXL.
class T5Encoder {
 public:
  /// Takes its tensors from `weights`.
  T5Encoder(const T5Config& config, const nn::Weights& weights);

  /// Embeddings [T, C] of ids [T] (int64, on the weights' device). Every token attends to every one, padding
  /// included, as FLUX was trained.
  [[nodiscard]] at::Tensor encode(const at::Tensor& ids) const;

 private:
  struct Layer {
    at::Tensor attention_norm, qkv, out, mlp_norm, mlp_in, mlp_out;
  };
  [[nodiscard]] at::Tensor position_bias(std::int64_t tokens) const;
  [[nodiscard]] at::Tensor mlp(const Layer& layer, const at::Tensor& x) const;

  T5Config config_;
  nn::Activation activation_;
  at::Tensor tokens_;
  at::Tensor relative_bias_;
  std::vector<Layer> layers_;
  at::Tensor final_norm_;
};

}  // namespace xdit::text
