#include "models/flux/flux.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "nn/ops.h"

namespace xdit::models {
namespace {

// (time, row, column) of every token: text tokens stand at the origin. [S + T, 3] in float64.
at::Tensor token_positions(const FluxInputs& inputs) {
  const at::Tensor image = at::zeros({inputs.rows, inputs.columns, 3}, at::kDouble);
  image.select(2, 1).copy_(
      at::arange(inputs.rows, at::kDouble).unsqueeze(1).expand({inputs.rows, inputs.columns}));
  image.select(2, 2).copy_(
      at::arange(inputs.columns, at::kDouble).unsqueeze(0).expand({inputs.rows, inputs.columns}));
  std::vector<at::Tensor> positions{at::zeros({inputs.text.size(0), 3}, at::kDouble)};
  for (const TokenRange& range : inputs.image)
    positions.push_back(image.flatten(0, 1).narrow(0, range.first, range.count));
  return at::cat(positions);
}

}  // namespace

Flux::Flux(const FluxConfig& config, BlockRange blocks, nn::Weights& weights, const nn::Linears& linears)
    : config_(config),
      blocks_(blocks),
      weights_(weights),
      image_in_(linears.make(weights, "x_embedder", true)),
      text_in_(linears.make(weights, "context_embedder", true)),
      time_in_(weights, linears, "time_text_embed.timestep_embedder"),
      pooled_in_(weights, linears, "time_text_embed.text_embedder"),
      image_out_(linears.make(weights, "proj_out", true)) {
  if (config.guidance_embeds) guidance_in_.emplace(weights, linears, "time_text_embed.guidance_embedder");
  for (std::int64_t i = blocks.first; i < blocks.end(); ++i) {
    if (i < config.double_blocks)
      double_blocks_.emplace_back(config, weights, linears, i);
    else
      single_blocks_.emplace_back(config, weights, linears, i - config.double_blocks);
  }
}

at::Tensor Flux::embedding(const FluxInputs& inputs) const {
  const auto steps = static_cast<std::int64_t>(inputs.times.size());
  const at::TensorOptions options = inputs.pooled.options();
  const auto embedded = [&](const Embedder& embedder, const at::Tensor& values) {
    return embedder(nn::timestep_embedding(values.to(options.device()) * 1000, {.width = kFluxTimeChannels})
                        .to(options.dtype()));
  };
  at::Tensor sum =
      embedded(time_in_, at::tensor(at::ArrayRef<float>(inputs.times.data(), inputs.times.size())));
  if (guidance_in_) sum = sum + embedded(*guidance_in_, at::full({steps}, inputs.guidance, at::kFloat));
  return sum + pooled_in_(inputs.pooled.unsqueeze(0));  // [steps, C]
}

// Whoever holds the matrix, whole or with others, computes it in the same pieces: the same bits.
at::Tensor Flux::modulation(const at::Tensor& x) const {
  const at::Tensor bias = weights_.get("modulation.bias");
  std::vector<at::Tensor> pieces;
  for (std::int64_t first = 0; first < bias.size(0); first += config_.modulation_piece()) {
    const std::int64_t count = std::min(config_.modulation_piece(), bias.size(0) - first);
    pieces.push_back(
        nn::linear(x, weights_.rows("modulation.weight", first, count), bias.narrow(0, first, count)));
  }
  return at::cat(pieces, 1);  // [steps, M]
}

FluxConditioning Flux::prepare(const FluxInputs& inputs) const {
  const at::Tensor modulations = modulation(at::silu(embedding(inputs)));
  return {.text = (*text_in_)(inputs.text),
          .modulation = modulations,
          .now = modulations[0].clone(),
          .rotary = nn::rotary_table(token_positions(inputs).to(inputs.text.device()), config_.rotary_axes)};
}

void FluxConditioning::select(std::int64_t step) const {
  now.copy_(modulation[step]);
}

void Flux::release_modulation() {
  weights_.release("modulation.weight");
  weights_.release("modulation.bias");
}

at::Tensor Flux::embed(const at::Tensor& latents, const at::Tensor& text) const {
  at::Tensor x = at::empty({text.size(0) + latents.size(0), config_.width()}, text.options());
  x.narrow(0, 0, text.size(0)).copy_(text);
  x.narrow(0, text.size(0), latents.size(0)).copy_((*image_in_)(latents));
  return x;
}

at::Tensor Flux::forward(const at::Tensor& input, const FluxConditioning& conditioning,
                         const ForwardPart& part, nn::Attention& attention) const {
  FluxModulations modulations(conditioning.now, config_.width());
  const std::int64_t all_text = conditioning.text.size(0);
  const std::int64_t text_tokens = part.text ? all_text : 0;
  const at::Tensor state =
      blocks_.first == 0 ? embed(input, conditioning.text.narrow(0, 0, text_tokens)) : input;  // [S + T, C]
  const std::int64_t image_tokens = state.size(0) - text_tokens;
  const std::int64_t first_row = part.text ? 0 : all_text + part.image_first;
  const at::Tensor rotary = conditioning.rotary.narrow(0, first_row, state.size(0));

  nn::ResidualStream text(state.narrow(0, 0, text_tokens));
  nn::ResidualStream image(state.narrow(0, text_tokens, image_tokens));
  std::int64_t index = blocks_.first;
  const auto nothing = [] {};
  std::function<void()> text_update = nothing;  // of the block before
  for (const FluxDoubleBlock& block : double_blocks_) {
    weights_.enter(index);
    text_update = block.forward(text, image, modulations, rotary, attention, text_update);
    if (!attention.sends() || !block.text_stays()) std::exchange(text_update, nothing)();
    weights_.leave(index++);
  }
  text_update();
  text.settle();
  image.settle();
  nn::ResidualStream x(state);  // of both
  for (const FluxSingleBlock& block : single_blocks_) {
    weights_.enter(index);
    block.forward(x, modulations, rotary, attention);
    weights_.leave(index++);
  }
  if (blocks_.end() < config_.blocks()) return x.settle();

  const at::Tensor scale = modulations.next();
  const at::Tensor shift = modulations.next();
  x.keep(text_tokens, image_tokens);
  return (*image_out_)(x.normed(shift, scale));
}

}  // namespace xdit::models
