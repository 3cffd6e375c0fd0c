#include "models/flux/blocks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>

#include "nn/ops.h"

namespace xdit::models {

FluxDoubleBlock::FluxDoubleBlock(const FluxConfig& config, const nn::Weights& weights,
                                 const nn::Linears& linears, std::int64_t index)
    : index_(index), head_dim_(config.head_dim) {
  const std::string at = fmt::format("transformer_blocks.{}.", index);
  const auto linear = [&](const char* name) { return linears.make(weights, at + name, true); };
  image_ = {linear("attn.qkv"),
            linear("attn.to_out.0"),
            linear("ff.net.0.proj"),
            linear("ff.net.2"),
            weights.get(at + "attn.norm_q.weight"),
            weights.get(at + "attn.norm_k.weight")};
  text_ = {linear("attn.add_qkv"),
           linear("attn.to_add_out"),
           linear("ff_context.net.0.proj"),
           linear("ff_context.net.2"),
           weights.get(at + "attn.norm_added_q.weight"),
           weights.get(at + "attn.norm_added_k.weight")};
}

nn::Stream FluxDoubleBlock::project(const Half& half, const at::Tensor& x,
                                    const FluxModulation& modulation) const {
  const at::Tensor qkv = (*half.qkv)(nn::modulated_layer_norm(x, modulation.shift, modulation.scale));
  return {qkv.unflatten(1, {3, -1, head_dim_}), half.query_norm, half.key_norm};  // [T, 3, H, D]
}

void FluxDoubleBlock::forward(const at::Tensor& text, const at::Tensor& image, FluxModulations& modulations,
                              const at::Tensor& rotary, nn::Attention& attention) const {
  const FluxModulation image1(modulations), image2(modulations), text1(modulations), text2(modulations);

  const std::array streams{project(text_, text, text1), project(image_, image, image1)};
  const std::int64_t attention_width = streams[0].qkv.size(2) * head_dim_;
  const at::Tensor attended = at::empty({text.size(0) + image.size(0), attention_width}, text.options());
  attention.attend(index_, streams, rotary, attended);

  const auto add = [](const Half& half, const at::Tensor& x, const at::Tensor& y, const FluxModulation& first,
                      const FluxModulation& second) {
    nn::add_gated(x, first.gate, (*half.proj)(y));
    const at::Tensor h = nn::modulated_layer_norm(x, second.shift, second.scale);
    nn::add_gated(x, second.gate, (*half.mlp_out)((*half.mlp_in)(h, nn::Activation::kGeluTanh)));
  };
  add(image_, image, attended.narrow(0, text.size(0), image.size(0)), image1, image2);
  add(text_, text, attended.narrow(0, 0, text.size(0)), text1, text2);
}

FluxSingleBlock::FluxSingleBlock(const FluxConfig& config, const nn::Weights& weights,
                                 const nn::Linears& linears, std::int64_t index)
    : index_(config.double_blocks + index),
      head_dim_(config.head_dim),
      width_(config.width()),
      projected_width_(3 * config.width() + config.mlp_width()) {
  const std::string at = fmt::format("single_transformer_blocks.{}.", index);
  linear1_ = linears.make(weights, at + "linear1", true);
  linear2_ = linears.make(weights, at + "proj_out", true);
  query_norm_ = weights.get(at + "attn.norm_q.weight");
  key_norm_ = weights.get(at + "attn.norm_k.weight");
}

void FluxSingleBlock::forward(const at::Tensor& x, FluxModulations& modulations, const at::Tensor& rotary,
                              nn::Attention& attention) const {
  const FluxModulation modulation(modulations);

  const at::Tensor projected = (*linear1_)(nn::modulated_layer_norm(x, modulation.shift, modulation.scale));
  const std::int64_t width = projected.size(1) * width_ / projected_width_;  // of the heads here
  const at::Tensor qkv = projected.narrow(1, 0, 3 * width).unflatten(1, {3, -1, head_dim_});  // [T, 3, H, D]
  const at::Tensor mlp = projected.narrow(1, 3 * width, projected.size(1) - 3 * width);

  const at::Tensor both = at::empty({x.size(0), width + mlp.size(1)}, x.options());
  nn::activate_into(both.narrow(1, width, mlp.size(1)), mlp, nn::Activation::kGeluTanh);
  attention.attend(index_, std::array{nn::Stream{qkv, query_norm_, key_norm_}}, rotary,
                   both.narrow(1, 0, width));
  nn::add_gated(x, modulation.gate, (*linear2_)(both));
}

}  // namespace xdit::models
