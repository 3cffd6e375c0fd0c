#include "models/sdxl/blocks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "nn/attention.h"
#include "nn/ops.h"

namespace xdit::models {
namespace {

constexpr double kTransformerEps = 1e-6;  // of the group norm before one
constexpr double kLayerNormEps = 1e-5;

}  // namespace

UnetTransformerBlock::UnetTransformerBlock(const UnetLayer& layer, const nn::Weights& weights,
                                           const nn::Linears& linears, const std::string& name)
    : heads_(layer.heads),
      qkv_(linears.make(weights, name + ".attn1.qkv", false)),
      out1_(linears.make(weights, name + ".attn1.to_out.0", true)),
      query_(linears.make(weights, name + ".attn2.to_q", false)),
      out2_(linears.make(weights, name + ".attn2.to_out.0", true)),
      mlp_in_(linears.make(weights, name + ".ff.net.0.proj", true)),
      mlp_out_(linears.make(weights, name + ".ff.net.2", true)) {
  const auto norm = [&](const char* which) -> Norm {
    return {weights.get(name + which + ".weight"), weights.get(name + which + ".bias")};
  };
  norm1_ = norm(".norm1");
  norm2_ = norm(".norm2");
  norm3_ = norm(".norm3");
}

// [B T, C] of query [B, T, C], keys and values [B, S, C].
at::Tensor UnetTransformerBlock::attend(nn::TokenAttention& attention, const at::Tensor& query,
                                        const at::Tensor& keys, const at::Tensor& values) const {
  const auto by_head = [&](const at::Tensor& x) { return x.unflatten(2, {heads_, -1}); };  // [B, T, H, D]
  const at::Tensor y = at::empty(query.sizes(), query.options());
  attention(by_head(y), by_head(query), by_head(keys), by_head(values));
  return y.flatten(0, 1);
}

void UnetTransformerBlock::forward(const at::Tensor& x, std::int64_t pictures, std::int64_t columns,
                                   UnetStep& step, const nn::Spatial& spatial) const {
  const std::int64_t width = x.size(1);
  const auto normed = [&](const Norm& norm) {
    return nn::layer_norm(x, norm.weight, norm.bias, kLayerNormEps);
  };
  const auto by_picture = [&](const at::Tensor& rows) { return rows.unflatten(0, {pictures, -1}); };
  const at::Tensor qkv = by_picture((*qkv_)(normed(norm1_)));  // [B, h W, 3 C]
  const at::Tensor kv = spatial.gather_tokens(qkv.narrow(2, width, 2 * width).unflatten(1, {-1, columns}));
  out1_->onto(x, attend(step.attention(), qkv.narrow(2, 0, width), kv.narrow(2, 0, width),
                        kv.narrow(2, width, width)));
  const auto [prompt_keys, prompt_values] = step.next_keys_values();
  out2_->onto(x, attend(step.attention(), by_picture((*query_)(normed(norm2_))), prompt_keys, prompt_values));
  mlp_out_->onto(x, nn::gated_gelu((*mlp_in_)(normed(norm3_))));
}

UnetBlock::UnetBlock(const UnetConfig& config, const UnetLayer& layer, std::int64_t stride,
                     const nn::Weights& weights, const nn::Linears& linears)
    : norm1_(nn::read_group_norm(weights, layer.resnet + ".norm1", config.groups, config.eps)),
      norm2_(nn::read_group_norm(weights, layer.resnet + ".norm2", config.groups, config.eps)),
      conv1_(nn::read_convolution(weights, layer.resnet + ".conv1")),
      conv2_(nn::read_convolution(weights, layer.resnet + ".conv2")) {
  if (layer.inputs != layer.outputs)
    shortcut_ = nn::read_convolution(weights, layer.resnet + ".conv_shortcut");
  if (!layer.resample.empty()) resample_ = nn::read_convolution(weights, layer.resample, stride);
  if (layer.transformer.empty()) return;
  transformer_norm_ =
      nn::read_group_norm(weights, layer.transformer + ".norm", config.groups, kTransformerEps);
  transformer_in_ = linears.make(weights, layer.transformer + ".proj_in", true);
  transformer_out_ = linears.make(weights, layer.transformer + ".proj_out", true);
  for (std::int64_t i = 0; i < layer.depth; ++i)
    transformer_.emplace_back(layer, weights, linears,
                              fmt::format("{}.transformer_blocks.{}", layer.transformer, i));
}

void UnetConditioning::select(std::int64_t step) const {
  now.copy_(biases[step]);
}

UnetConditioning joined(const UnetConditioning& a, const UnetConditioning& b) {
  UnetConditioning both{
      .biases = at::cat({a.biases, b.biases}, 1), .now = at::cat({a.now, b.now}), .keys = {}, .values = {}};
  for (std::size_t i = 0; i < a.keys.size(); ++i) {
    both.keys.push_back(at::cat({a.keys[i], b.keys[i]}));
    both.values.push_back(at::cat({a.values[i], b.values[i]}));
  }
  return both;
}

at::Tensor UnetBlock::forward(const at::Tensor& x, UnetStep& step, const nn::Spatial& spatial) const {
  at::Tensor h = spatial.convolve_normed(x, norm1_, {conv1_.weight, /*bias=*/{}});
  nn::GroupNorm second = norm2_;
  second.shift = step.next_bias(conv1_.weight.size(0));
  h = spatial.convolve_normed(h, second, conv2_);
  spatial.add_shortcut(h, x, shortcut_);
  return transformer_norm_ ? transform(h, step, spatial) : h;
}

at::Tensor UnetBlock::transform(const at::Tensor& x, UnetStep& step, const nn::Spatial& spatial) const {
  const auto as_tokens = [](const at::Tensor& pictures) {
    return pictures.permute({0, 2, 3, 1}).flatten(0, 2);  // [B h W, C]
  };
  const at::Tensor tokens = (*transformer_in_)(as_tokens(spatial.group_norm(x, *transformer_norm_)));
  for (const UnetTransformerBlock& block : transformer_)
    block.forward(tokens, x.size(0), x.size(3), step, spatial);
  const at::Tensor sum = as_tokens(x);
  transformer_out_->onto(sum, tokens);
  return sum.view({x.size(0), x.size(2), x.size(3), x.size(1)}).permute({0, 3, 1, 2});
}

}  // namespace xdit::models
