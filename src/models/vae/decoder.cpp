#include "models/vae/decoder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "nn/attention.h"
#include "nn/linear.h"

namespace xdit::models {

VaeDecoder::VaeDecoder(const VaeConfig& config, const nn::Weights& weights) : config_(config) {
  const auto norm = [&](const std::string& name) {
    return nn::read_group_norm(weights, name, config.groups, 1e-6);
  };
  const auto convolution = [&](const std::string& name) { return nn::read_convolution(weights, name); };
  const auto resnet = [&](const std::string& at, std::int64_t inputs, std::int64_t outputs) -> Resnet {
    return {norm(at + "norm1"), convolution(at + "conv1"), norm(at + "norm2"), convolution(at + "conv2"),
            inputs == outputs ? std::nullopt : std::optional(convolution(at + "conv_shortcut"))};
  };
  if (config.post_quant_conv) post_quant_ = convolution("post_quant_conv");
  conv_in_ = convolution("decoder.conv_in");
  std::int64_t width = config.channels.back();
  for (int i = 0; i < 2; ++i)
    mid_.push_back(resnet(fmt::format("decoder.mid_block.resnets.{}.", i), width, width));
  if (config.mid_attention) {
    const std::string at = "decoder.mid_block.attentions.0.";
    attention_ = {norm(at + "group_norm"), weights.get(at + "qkv.weight"), weights.get(at + "qkv.bias"),
                  weights.get(at + "to_out.0.weight"), weights.get(at + "to_out.0.bias")};
  }
  for (std::size_t i = 0; i < config.channels.size(); ++i) {
    const std::string at = fmt::format("decoder.up_blocks.{}.", i);
    const std::int64_t outputs = config.channels[config.channels.size() - 1 - i];
    Level level;
    for (std::int64_t j = 0; j < config.resnets; ++j) {
      level.resnets.push_back(resnet(fmt::format("{}resnets.{}.", at, j), width, outputs));
      width = outputs;
    }
    if (i + 1 < config.channels.size()) level.upsample = convolution(at + "upsamplers.0.conv");
    levels_.push_back(std::move(level));
  }
  norm_out_ = norm("decoder.conv_norm_out");
  conv_out_ = convolution("decoder.conv_out");
}

at::Tensor VaeDecoder::run(const Resnet& layer, const at::Tensor& x, const nn::Spatial& spatial) {
  at::Tensor h = spatial.convolve_normed(x, layer.norm1, layer.conv1);
  h = spatial.convolve_normed(h, layer.norm2, layer.conv2);
  spatial.add_shortcut(h, x, layer.shortcut);
  return h;
}

at::Tensor VaeDecoder::run(const SelfAttention& layer, const at::Tensor& x, const nn::Spatial& spatial) {
  const std::int64_t channels = x.size(1);
  const at::Tensor normed = spatial.group_norm(x, layer.norm).permute({0, 2, 3, 1});  // [B, h, W, C]
  const at::Tensor qkv = nn::linear(normed, layer.qkv_weight, layer.qkv_bias);
  const auto kv = spatial.gather_tokens(qkv.narrow(-1, channels, 2 * channels)).chunk(2, -1);  // [B, H W, C]
  const double scale = 1 / std::sqrt(static_cast<double>(channels));
  const auto one_head = [](const at::Tensor& t) { return t.unsqueeze(1); };  // [B, 1, T, C]
  const at::Tensor q = qkv.narrow(-1, 0, channels).flatten(1, 2);
  const at::Tensor y = nn::scaled_dot_product(one_head(q), one_head(kv[0]), one_head(kv[1]), scale,
                                              /*bias=*/{}, /*causal=*/false, spatial.tf32())
                           .squeeze(1);
  return x +
         nn::linear(y, layer.out_weight, layer.out_bias).transpose(1, 2).unflatten(2, {x.size(2), x.size(3)});
}

at::Tensor VaeDecoder::decode(const at::Tensor& latents, const nn::Spatial& spatial) const {
  at::Tensor x = latents;
  if (x.is_cuda()) x = x.contiguous(at::MemoryFormat::ChannelsLast);
  if (post_quant_) x = spatial.convolve(x, *post_quant_);
  x = spatial.convolve(x, conv_in_);
  x = run(mid_[0], x, spatial);
  if (attention_) x = run(*attention_, x, spatial);
  x = run(mid_[1], x, spatial);
  for (const Level& level : levels_) {
    for (const Resnet& resnet : level.resnets) x = run(resnet, x, spatial);
    if (level.upsample)
      x = spatial.convolve_doubled(x, *level.upsample, spatial, 2 * x.size(2), 2 * x.size(3));
  }
  return spatial.convolve_normed(x, norm_out_, conv_out_);
}

at::Tensor VaeDecoder::decode_scaled(const at::Tensor& latents, const nn::Spatial& spatial) const {
  const at::Tensor x = latents.to(conv_in_.weight.scalar_type());
  if (config_.deviations.empty()) return decode(x / config_.scaling_factor + config_.shift_factor, spatial);
  const auto by_channel = [&](const std::vector<double>& values) {
    return at::tensor(values, x.options()).view({1, -1, 1, 1});
  };
  return decode(x * by_channel(config_.deviations) / config_.scaling_factor + by_channel(config_.means),
                spatial);
}

std::vector<nn::ExpectedConvolution> decoder_convolutions(const VaeConfig& config, std::int64_t rows,
                                                          std::int64_t columns) {
  std::vector<nn::ExpectedConvolution> all;
  std::int64_t width = config.latent_channels;
  const auto add = [&](std::int64_t outputs) {
    all.push_back({width, outputs, rows, columns});
    width = outputs;
  };
  const auto resnet = [&](std::int64_t outputs) {
    add(outputs);
    add(outputs);
  };
  add(config.channels.back());
  for (int i = 0; i < 2; ++i) resnet(width);
  for (auto level = config.channels.rbegin(); level != config.channels.rend(); ++level) {
    for (std::int64_t i = 0; i < config.resnets; ++i) resnet(*level);
    if (level + 1 == config.channels.rend()) break;
    rows *= 2;
    columns *= 2;
    add(width);
  }
  add(config.out_channels);
  return all;
}

}  // namespace xdit::models
