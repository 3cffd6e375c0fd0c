#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/sdxl/tables.h"
#include "nn/attention.h"
#include "nn/convolution.h"
#include "nn/group_norm.h"
#include "nn/linear.h"
#include "nn/spatial.h"
#include "nn/weights.h"

/// The layers of latent diffusion's UNet. Pictures are [B, C, h, W] in channels-last memory, so that their
/// pixels are rows [B h W, C]; each has a prompt of its own.
namespace xdit::models {

/// Everything in a forward that does not depend on the latents, in the order of use.
struct UnetConditioning {
  at::Tensor biases;  ///< [steps, B, sum of C] by resnet: its first convolution's and the time's
  at::Tensor now;     ///< [B, sum of C]: those of the step that forwards compute
  std::vector<at::Tensor> keys, values;  ///< by transformer block [B, S, C]
  void select(std::int64_t step) const;
  [[nodiscard]] std::int64_t pictures() const { return now.size(0); }
};
/// Two conditionings of the same steps as one of all their pictures.
[[nodiscard]] UnetConditioning joined(const UnetConditioning& a, const UnetConditioning& b);

/// The selected step's share of it, handed out in that order, and what its layers attend with.
class UnetStep {
 public:
  UnetStep(const UnetConditioning& of, nn::TokenAttention& attention) : of_(of), attention_(attention) {}
  [[nodiscard]] nn::TokenAttention& attention() const { return attention_; }
  [[nodiscard]] at::Tensor next_bias(std::int64_t width) {
    return of_.now.narrow(1, std::exchange(bias_, bias_ + width), width);
  }
  /// References into the conditioning.
  [[nodiscard]] std::pair<const at::Tensor&, const at::Tensor&> next_keys_values() {
    const std::size_t i = block_++;
    return {of_.keys.at(i), of_.values.at(i)};
  }

 private:
  const UnetConditioning& of_;
  nn::TokenAttention& attention_;
  std::int64_t bias_ = 0;
  std::size_t block_ = 0;
};

/// Self-attention over the picture, attention to the prompt, and a gated MLP (Vaswani et al. 2017).
class UnetTransformerBlock {
 public:
  UnetTransformerBlock(const UnetLayer& layer, const nn::Weights& weights, const nn::Linears& linears,
                       const std::string& name);
  /// Updates x [B h W, C], B pictures of W columns, in place.
  void forward(const at::Tensor& x, std::int64_t pictures, std::int64_t columns, UnetStep& step,
               const nn::Spatial& spatial) const;

 private:
  struct Norm {
    at::Tensor weight, bias;
  };
  [[nodiscard]] at::Tensor attend(nn::TokenAttention& attention, const at::Tensor& query,
                                  const at::Tensor& keys, const at::Tensor& values) const;

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
