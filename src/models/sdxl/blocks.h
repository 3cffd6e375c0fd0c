#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/sdxl/tables.h"
#include "nn/convolution.h"
#include "nn/group_norm.h"
#include "nn/linear.h"
#include "nn/spatial.h"
#include "nn/weights.h"

/// The layers of latent diffusion's UNet. Pictures are [1, C, h, W] in channels-last memory, so that their
/// pixels are rows [h W, C].
namespace xdit::models {

/// Everything in a forward that does not depend on the latents, in the order of use.
struct UnetConditioning {
  std::vector<at::Tensor> biases;  ///< by resnet [steps, C]: its first convolution's and the time's
  std::vector<at::Tensor> keys;    ///< by transformer block [S, C]
  std::vector<at::Tensor> values;
};

/// One step's share of it, handed out in that order.
class UnetStep {
 public:
  UnetStep(const UnetConditioning& of, std::int64_t step) : of_(of), step_(step) {}
  [[nodiscard]] at::Tensor next_bias() { return of_.biases.at(resnet_++).select(0, step_); }
  struct KeysValues {
    const at::Tensor &keys, &values;
  };
  [[nodiscard]] KeysValues next_keys_values() {
    const std::size_t i = block_++;
    return {of_.keys.at(i), of_.values.at(i)};
  }

 private:
  const UnetConditioning& of_;
  std::int64_t step_;
  std::size_t resnet_ = 0;
  std::size_t block_ = 0;
};

/// Self-attention over the picture, attention to the prompt, and a gated MLP (Vaswani et al. 2017).
class UnetTransformerBlock {
 public:
  UnetTransformerBlock(const UnetLayer& layer, const nn::Weights& weights, const nn::Linears& linears,
                       const std::string& name);
  /// Updates x [h W, C], W columns, in place.
  void forward(const at::Tensor& x, std::int64_t columns, UnetStep& step, const nn::Spatial& spatial) const;

 private:
  struct Norm {
    at::Tensor weight, bias;
  };
  [[nodiscard]] at::Tensor attend(const at::Tensor& query, const at::Tensor& keys,
                                  const at::Tensor& values) const;

  std::int64_t heads_;
  Norm norm1_, norm2_, norm3_;
  std::unique_ptr<nn::Linear> qkv_, out1_, query_, out2_, mlp_in_, mlp_out_;
};

/// A resnet (He et al. 2016) that is told the time, and the transformer behind it if the layer has one.
class UnetBlock {
 public:
  /// `stride`: of its convolution to the next resolution.
  UnetBlock(const UnetConfig& config, const UnetLayer& layer, std::int64_t stride, const nn::Weights& weights,
            const nn::Linears& linears);
  [[nodiscard]] at::Tensor forward(const at::Tensor& x, UnetStep& step, const nn::Spatial& spatial) const;
  /// The convolution to the next resolution, if the layer has one.
  [[nodiscard]] const std::optional<nn::Convolution>& resample() const { return resample_; }
  [[nodiscard]] const at::Tensor& first_bias() const { return conv1_.bias; }  ///< of the first convolution

 private:
  [[nodiscard]] at::Tensor transform(const at::Tensor& x, UnetStep& step, const nn::Spatial& spatial) const;

  nn::GroupNorm norm1_, norm2_;
  nn::Convolution conv1_, conv2_;
  std::optional<nn::Convolution> shortcut_, resample_;
  std::optional<nn::GroupNorm> transformer_norm_;
  std::unique_ptr<nn::Linear> transformer_in_, transformer_out_;
  std::vector<UnetTransformerBlock> transformer_;
};

}  // namespace xdit::models
