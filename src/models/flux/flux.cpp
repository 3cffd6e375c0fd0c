#include "models/flux/flux.h"

#include <ATen/ATen.h>

#include "nn/ops.h"

namespace xdit::models {
namespace {

using nn::Split;

// (time, row, column) of every token: text tokens stand at the origin. [S + T, 3] in float64.
at::Tensor token_positions(const FluxInputs& inputs) {
  const at::Tensor image = at::zeros({inputs.rows, inputs.columns, 3}, at::kDouble);
  image.select(2, 1).copy_(
      at::arange(inputs.rows, at::kDouble).unsqueeze(1).expand({inputs.rows, inputs.columns}));
  image.select(2, 2).copy_(
      at::arange(inputs.columns, at::kDouble).unsqueeze(0).expand({inputs.rows, inputs.columns}));
  return at::cat({at::zeros({inputs.text.size(0), 3}, at::kDouble),
                  image.flatten(0, 1).narrow(0, inputs.image_first, inputs.image_count)});
}

}  // namespace

Flux::Flux(const FluxConfig& config, nn::Weights& weights, const nn::Linears& linears)
    : config_(config),
      weights_(weights),
      image_in_(linears.make(weights, "x_embedder", true, Split::kNone)),
      text_in_(linears.make(weights, "context_embedder", true, Split::kNone)),
      time_in_(weights, linears, "time_text_embed.timestep_embedder"),
      pooled_in_(weights, linears, "time_text_embed.text_embedder"),
      modulation_(linears.make(weights, "modulation", true, Split::kNone)),
      image_out_(linears.make(weights, "proj_out", true, Split::kNone)) {
  if (config.guidance_embeds) guidance_in_.emplace(weights, linears, "time_text_embed.guidance_embedder");
  for (std::int64_t i = 0; i < config.double_blocks; ++i)
    double_blocks_.emplace_back(config, weights, linears, i);
  for (std::int64_t i = 0; i < config.single_blocks; ++i)
    single_blocks_.emplace_back(config, weights, linears, i);
}

at::Tensor Flux::embedding(const FluxInputs& inputs) const {
  const auto steps = static_cast<std::int64_t>(inputs.times.size());
  const at::TensorOptions options = inputs.pooled.options();
  const auto embedded = [&](const FluxEmbedder& embedder, const at::Tensor& values) {
    return embedder(
        nn::timestep_embedding(values.to(options.device()) * 1000, kFluxTimeChannels).to(options.dtype()));
  };
  at::Tensor sum =
      embedded(time_in_, at::tensor(at::ArrayRef<float>(inputs.times.data(), inputs.times.size())));
  if (guidance_in_) sum = sum + embedded(*guidance_in_, at::full({steps}, inputs.guidance, at::kFloat));
  return sum + pooled_in_(inputs.pooled.unsqueeze(0));  // [steps, C]
}

FluxConditioning Flux::prepare(const FluxInputs& inputs) const {
  return {.text = (*text_in_)(inputs.text),
          .modulation = (*modulation_)(at::silu(embedding(inputs))),
          .rotary = nn::rotary_table(token_positions(inputs), config_.rotary_axes).to(inputs.text.device())};
}

void Flux::release_modulation() {
  modulation_.reset();
  weights_.release("modulation.weight");
  weights_.release("modulation.bias");
}

at::Tensor Flux::forward(const at::Tensor& image, const FluxConditioning& conditioning, std::int64_t step,
                         nn::Attention& attention) const {
  FluxModulations modulations(conditioning.modulation.select(0, step), config_.width());
  const std::int64_t text_tokens = conditioning.text.size(0);
  const at::Tensor x = at::empty({text_tokens + image.size(0), config_.width()}, conditioning.text.options());
  const at::Tensor text = x.narrow(0, 0, text_tokens);
  const at::Tensor picture = x.narrow(0, text_tokens, image.size(0));
  text.copy_(conditioning.text);
  picture.copy_((*image_in_)(image));

  std::int64_t index = 0;
  for (const FluxDoubleBlock& block : double_blocks_) {
    weights_.enter(index);
    block.forward(text, picture, modulations, conditioning.rotary, attention);
    weights_.leave(index++);
  }
  for (const FluxSingleBlock& block : single_blocks_) {
    weights_.enter(index);
    block.forward(x, modulations, conditioning.rotary, attention);
    weights_.leave(index++);
  }

  const at::Tensor scale = modulations.next();
  const at::Tensor shift = modulations.next();
  return (*image_out_)(nn::modulated_layer_norm(picture, shift, scale));
}

}  // namespace xdit::models
