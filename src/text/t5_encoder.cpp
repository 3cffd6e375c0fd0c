#include "text/t5_encoder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "nn/attention.h"
#include "nn/linear.h"
#include "nn/ops.h"

namespace xdit::text {

T5Encoder::T5Encoder(const T5Config& config, const nn::Weights& weights)
    : config_(config), activation_(nn::activation_from_name(config.activation)) {
  tokens_ = weights.get("shared.weight");
  relative_bias_ = weights.get("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
  for (std::int64_t i = 0; i < config.layers; ++i) {
    const std::string attention = fmt::format("encoder.block.{}.layer.0.", i);
    const std::string mlp = fmt::format("encoder.block.{}.layer.1.", i);
    layers_.push_back(
        {weights.get(attention + "layer_norm.weight"), weights.get(attention + "SelfAttention.qkv.weight"),
         weights.get(attention + "SelfAttention.o.weight"), weights.get(mlp + "layer_norm.weight"),
         weights.get(mlp + "DenseReluDense.wi.weight"), weights.get(mlp + "DenseReluDense.wo.weight")});
  }
  final_norm_ = weights.get("encoder.final_layer_norm.weight");
}

// [1, H, T, T]: half of the buckets for each direction; of those, half exact, half logarithmic up to
// max_distance.
at::Tensor T5Encoder::position_bias(std::int64_t tokens) const {
  const std::int64_t half = config_.buckets / 2;
  const std::int64_t exact = half / 2;
  const at::Tensor position = at::arange(tokens, at::kLong);
  const at::Tensor relative = position.unsqueeze(0) - position.unsqueeze(1);  // key - query
  const at::Tensor distance = relative.abs();
  const double ratio = std::log(static_cast<double>(config_.max_distance) / static_cast<double>(exact));
  const at::Tensor logarithmic = (at::log(distance.to(at::kFloat) / exact) / ratio * (half - exact))
                                     .to(at::kLong)
                                     .add(exact)
                                     .clamp_max(half - 1);
  const at::Tensor bucket =
      at::where(distance < exact, distance, logarithmic) + (relative > 0).to(at::kLong) * half;
  return at::embedding(relative_bias_, bucket.to(relative_bias_.device()))
      .permute({2, 0, 1})
      .unsqueeze(0)
      .contiguous();
}

at::Tensor T5Encoder::mlp(const Layer& layer, const at::Tensor& x) const {
  at::Tensor h = nn::linear(x, layer.mlp_in);
  if (x.scalar_type() == at::kHalf) h = h.to(at::kFloat);
  if (config_.gated) {
    const auto parts = h.chunk(2, -1);
    h = nn::activate(parts[0], activation_) * parts[1];
  } else {
    h = nn::activate(h, activation_);
  }
  return nn::linear(h, layer.mlp_out.to(h.scalar_type()));
}

at::Tensor T5Encoder::encode(const at::Tensor& ids) const {
  const at::ScalarType dtype = tokens_.scalar_type();
  const at::Tensor bias = position_bias(ids.size(0));
  at::Tensor x = at::embedding(tokens_, ids).to(at::kFloat);  // [T, C]
  const auto normed = [&](const at::Tensor& weight) {
    return nn::rms_norm(x, weight, config_.eps).to(dtype);
  };
  for (const Layer& layer : layers_) {
    const at::Tensor qkv = nn::linear(normed(layer.attention_norm), layer.qkv)
                               .unflatten(1, {3, config_.heads, config_.head_dim})
                               .permute({1, 2, 0, 3})
                               .unsqueeze(1);  // [3, 1, H, T, D]
    const at::Tensor y = nn::scaled_dot_product(qkv[0], qkv[1], qkv[2], 1.0, bias);
    x = x + nn::linear(y.squeeze(0).transpose(0, 1).flatten(1), layer.out);
    x = x + mlp(layer, normed(layer.mlp_norm));
  }
  return normed(final_norm_);
}

}  // namespace xdit::text
