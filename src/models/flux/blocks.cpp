#include "models/flux/blocks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

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
  text_stays_ = weights.stays(at + "attn.to_add_out.weight");  // as all of the block
}

std::function<void()> FluxDoubleBlock::forward(nn::ResidualStream& text, nn::ResidualStream& image,
                                               FluxModulations& modulations, const at::Tensor& rotary,
                                               nn::Attention& attention,
                                               const std::function<void()>& before) const {
  const FluxModulation image1(modulations), image2(modulations), text1(modulations), text2(modulations);

  const std::int64_t tokens = text.tokens() + image.tokens(), width = image_.qkv->outputs();
  const auto text_rows = [&](const at::Tensor& x) { return x.narrow(0, 0, text.tokens()); };
  const auto image_rows = [&](const at::Tensor& x) { return x.narrow(0, text.tokens(), image.tokens()); };
  const at::Tensor qkv = at::empty({tokens, width}, text.options());
  const bool quantised = image_.qkv->quantised();
  attention.begin(index_, qkv.unflatten(1, {3, -1, head_dim_}), rotary);
  // The many first: they travel while the few are computed.
  image_.qkv->into(image_rows(qkv), image.normed(image1.shift, image1.scale, quantised));
  attention.add(text.tokens(), {image.tokens(), image_.query_norm, image_.key_norm});
  before();
  text_.qkv->into(text_rows(qkv), text.normed(text1.shift, text1.scale, quantised));
  attention.add(0, {text.tokens(), text_.query_norm, text_.key_norm});
  const at::Tensor attended = at::empty({tokens, width / 3}, text.options());
  attention.finish(attended);

  const auto add = [quantised](const Half& half, nn::ResidualStream& x, const at::Tensor& y,
                               const FluxModulation& first, const FluxModulation& second) {
    x.add(first.gate, (*half.proj)(y));
    const nn::Rows h = x.normed(second.shift, second.scale, quantised);
    x.add(second.gate, (*half.mlp_out)((*half.mlp_in)(h, nn::Activation::kGeluTanh)));
  };
  add(image_, image, image_rows(attended), image1, image2);
  return [=, this, &text, y = text_rows(attended)] { add(text_, text, y, text1, text2); };
}

FluxSingleBlock::FluxSingleBlock(const FluxConfig& config, const nn::Weights& weights,
                                 const nn::Linears& linears, std::int64_t index)
    : index_(config.double_blocks + index), head_dim_(config.head_dim) {
  const std::string at = fmt::format("single_transformer_blocks.{}.", index);
  qkv_ = linears.make(weights, at + "attn.qkv", true);
  mlp_in_ = linears.make(weights, at + "proj_mlp", true);
  out_ = linears.make(weights, at + "proj_out", true);
  query_norm_ = weights.get(at + "attn.norm_q.weight");
  key_norm_ = weights.get(at + "attn.norm_k.weight");
}

void FluxSingleBlock::forward(nn::ResidualStream& x, FluxModulations& modulations, const at::Tensor& rotary,
                              nn::Attention& attention) const {
  const FluxModulation modulation(modulations);

  const nn::Rows h = x.normed(modulation.shift, modulation.scale, qkv_->quantised());
  const std::int64_t heads_width = qkv_->outputs() / 3, mlp_width = mlp_in_->outputs();
  const at::Tensor both = at::empty({x.tokens(), heads_width + mlp_width}, x.options());
  attention.begin(index_, (*qkv_)(h).unflatten(1, {3, -1, head_dim_}), rotary);
  attention.add(0, {x.tokens(), query_norm_, key_norm_});
  mlp_in_->into(both.narrow(1, heads_width, mlp_width), h, nn::Activation::kGeluTanh);
  attention.finish(both.narrow(1, 0, heads_width));
  x.add(modulation.gate, (*out_)(both));
}

}  // namespace xdit::models
