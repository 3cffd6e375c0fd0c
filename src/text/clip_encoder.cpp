#include "text/clip_encoder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "nn/attention.h"
#include "nn/linear.h"

namespace xdit::text {

ClipEncoder::ClipEncoder(const ClipConfig& config, const nn::Weights& weights)
    : config_(config), activation_(nn::activation_from_name(config.activation)) {
  const auto affine = [&](const std::string& name) -> Affine {
    return {weights.get(name + ".weight"), weights.get(name + ".bias")};
  };
  tokens_ = weights.get("text_model.embeddings.token_embedding.weight");
  positions_ = weights.get("text_model.embeddings.position_embedding.weight");
  for (std::int64_t i = 0; i < config.layers; ++i) {
    const std::string at = fmt::format("text_model.encoder.layers.{}.", i);
    layers_.push_back({affine(at + "layer_norm1"), affine(at + "self_attn.qkv"),
                       affine(at + "self_attn.out_proj"), affine(at + "layer_norm2"), affine(at + "mlp.fc1"),
                       affine(at + "mlp.fc2")});
  }
  final_norm_ = affine("text_model.final_layer_norm");
  if (config.projection > 0)
    projection_ = config.transposed ? weights.get("text_projection").t().contiguous()
                                    : weights.get("text_projection.weight");
}

at::Tensor ClipEncoder::norm(const at::Tensor& x, const Affine& layer) const {
  return at::layer_norm(x, {config_.width}, layer.weight.to(at::kFloat), layer.bias.to(at::kFloat),
                        config_.eps)
      .to(layer.weight.scalar_type());
}

ClipStates ClipEncoder::encode(const at::Tensor& ids) const {
  const std::int64_t head_dim = config_.width / config_.heads;
  at::Tensor x = at::embedding(tokens_, ids).to(at::kFloat) + positions_.narrow(0, 0, ids.size(0));  // [T, C]
  at::Tensor before;  // the last layer
  for (const Layer& layer : layers_) {
    before = x;
    const at::Tensor qkv = nn::linear(norm(x, layer.norm1), layer.qkv.weight, layer.qkv.bias)
                               .unflatten(1, {3, config_.heads, head_dim})
                               .permute({1, 2, 0, 3})
                               .unsqueeze(1);  // [3, 1, H, T, D]
    const at::Tensor y = nn::scaled_dot_product(
        qkv[0], qkv[1], qkv[2], 1 / std::sqrt(static_cast<double>(head_dim)), {}, /*causal=*/true);
    x = x + nn::linear(y.squeeze(0).transpose(0, 1).flatten(1), layer.out.weight, layer.out.bias);
    const at::Tensor h =
        nn::activate(nn::linear(norm(x, layer.norm2), layer.fc1.weight, layer.fc1.bias), activation_);
    x = x + nn::linear(h, layer.fc2.weight, layer.fc2.bias);
  }
  // Published configs say eos_token_id 2, which is no end token: transformers then takes the largest id.
  const at::Tensor is_end = config_.eos_token_id == 2 ? ids : ids.eq(config_.eos_token_id).to(at::kInt);
  const at::Tensor last = norm(x, final_norm_);
  at::Tensor pooled = last.index_select(0, at::argmax(is_end, 0, /*keepdim=*/true));
  if (projection_.defined()) pooled = nn::linear(pooled, projection_);
  return {.last = last, .penultimate = before.to(last.scalar_type()), .pooled = pooled.squeeze(0)};
}

}  // namespace xdit::text
