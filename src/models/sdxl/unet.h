#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "models/embedder.h"
#include "models/sdxl/blocks.h"
#include "models/sdxl/tables.h"
#include "nn/convolution.h"
#include "nn/group_norm.h"
#include "nn/linear.h"
#include "nn/spatial.h"
#include "nn/weights.h"

namespace xdit::models {

struct UnetInputs {
  at::Tensor text;                   ///< the prompt's tokens [S, text_width]
  at::Tensor pooled;                 ///< its pooled embedding [P], for models that take it
  std::span<const float> timesteps;  ///< of the steps: 1000 is noise
  std::span<const double> size_ids;  ///< for models that take them
};

/// Latent diffusion's UNet (Rombach et al. 2022; SDXL: Podell et al. 2023; diffusers UNet2DConditionModel)
/// for one picture.
class Unet {
 public:
  /// Takes its tensors from `weights`, which outlives it.
  Unet(const UnetConfig& config, nn::Weights& weights, const nn::Linears& linears,
       std::shared_ptr<nn::cudnn::Attentions> built = std::make_shared<nn::cudnn::Attentions>());

  /// Error(kModel) where pooled embedding and size ids are not as wide as the model takes them. Once the last
  /// prompt is prepared, `release_conditioning` frees what only this needs.
  [[nodiscard]] UnetConditioning prepare(const UnetInputs& inputs) const;
  void release_conditioning();

  /// Predictions [B, C, h, w] for each prompt of `conditioning` at this rank's rows of the latents [C, h, w]
  /// in the selected step.
  [[nodiscard]] at::Tensor forward(const at::Tensor& latents, const UnetConditioning& conditioning,
                                   const nn::Spatial& spatial) const;

 private:
  [[nodiscard]] at::Tensor embedding(const UnetInputs& inputs) const;

  UnetConfig config_;
  UnetLayout layout_;
  nn::Weights& weights_;
  Embedder time_in_;
  std::optional<Embedder> added_in_;
  std::unique_ptr<nn::Linear> time_projections_;
  std::unique_ptr<nn::Linear> cross_attentions_;  ///< null: no transformers
  nn::Convolution conv_in_;
  std::vector<UnetBlock> down_, middle_, up_;
  nn::GroupNorm norm_out_;
  nn::Convolution conv_out_;
  std::unique_ptr<nn::TokenAttention> attention_;
};

}  // namespace xdit::models
