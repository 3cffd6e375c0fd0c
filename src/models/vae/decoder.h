#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "models/vae/tables.h"
#include "nn/spatial.h"
#include "nn/weights.h"

namespace xdit::models {

/// The decoder of diffusers' AutoencoderKL (Esser et al. 2021, Rombach et al. 2022).
class VaeDecoder {
 public:
  /// Takes its tensors from `weights`.
  VaeDecoder(const VaeConfig& config, const nn::Weights& weights);

  /// Picture [B, 3, 8 h, 8 w] around -1..1, not clamped, of latents [B, C, h, w] as the VAE's encoder gives
  /// them.
  [[nodiscard]] at::Tensor decode(const at::Tensor& latents, const nn::Spatial& spatial) const;
  /// The same of a denoiser's latents, which are shifted and scaled.
  [[nodiscard]] at::Tensor decode_scaled(const at::Tensor& latents, const nn::Spatial& spatial) const;

 private:
  struct Resnet {
    nn::GroupNorm norm1;
    nn::Convolution conv1;
    nn::GroupNorm norm2;
    nn::Convolution conv2;
    std::optional<nn::Convolution> shortcut;
  };
  struct SelfAttention {
    nn::GroupNorm norm;
    at::Tensor qkv_weight, qkv_bias, out_weight, out_bias;
  };
  struct Level {
    std::vector<Resnet> resnets;
    std::optional<nn::Convolution> upsample;
  };

  [[nodiscard]] static at::Tensor run(const Resnet& layer, const at::Tensor& x, const nn::Spatial& spatial);
  [[nodiscard]] static at::Tensor run(const SelfAttention& layer, const at::Tensor& x,
                                      const nn::Spatial& spatial);

  VaeConfig config_;
  std::optional<nn::Convolution> post_quant_;
  nn::Convolution conv_in_;
  std::vector<Resnet> mid_;
  std::optional<SelfAttention> attention_;
  std::vector<Level> levels_;
  nn::GroupNorm norm_out_;
  nn::Convolution conv_out_;
};

/// Its convolutions of 3 x 3 pixels in the order of use, for latents of so many rows and columns.
[[nodiscard]] std::vector<nn::ExpectedConvolution> decoder_convolutions(const VaeConfig& config,
                                                                        std::int64_t rows,
                                                                        std::int64_t columns);

}  // namespace xdit::models
