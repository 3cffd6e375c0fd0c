#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "models/denoiser.h"
#include "models/embedder.h"
#include "models/flux/blocks.h"
#include "models/flux/tables.h"
#include "nn/attention.h"
#include "nn/linear.h"
#include "nn/weights.h"

namespace xdit::models {

/// Everything in a forward that does not depend on the latents, for all steps of one prompt.
struct FluxConditioning {
  at::Tensor text;        ///< [S, C], embedded
  at::Tensor modulation;  ///< [steps, M]: shifts, scales and gates of every block, in the order of use
  at::Tensor now;         ///< [M]: those of the step that forwards compute
  at::Tensor rotary;      ///< [S + T, D / 2, 2]
  void select(std::int64_t step) const;
};

struct FluxInputs {
  at::Tensor text;               ///< T5's embeddings [S, text_width] of the forward's text tokens
  at::Tensor pooled;             ///< CLIP's pooled embedding [pooled_width]
  std::span<const float> times;  ///< of the steps: 1 is noise, 0 the picture
  double guidance = 0;           ///< scale, for models that embed it
  std::int64_t rows = 0;         ///< of image tokens
  std::int64_t columns = 0;
  std::span<const TokenRange> image;  ///< tokens of the forwards, one range after the other
};

/// FLUX.1's rectified-flow transformer (black-forest-labs/flux model.py; diffusers FluxTransformer2DModel)
/// for one picture: C channels of H heads of D, S text tokens before T image tokens.
class Flux {
 public:
  /// Its blocks [blocks.first, blocks.first + blocks.count). Takes its tensors from `weights`, which outlives
  /// it.
  Flux(const FluxConfig& config, BlockRange blocks, nn::Weights& weights, const nn::Linears& linears);

  /// Once the last prompt is prepared, `release_modulation` frees a quarter of the published model's weights,
  /// unless ranks share them.
  [[nodiscard]] FluxConditioning prepare(const FluxInputs& inputs) const;
  void release_modulation();

  /// Velocity [T, out_channels] at latents `input` [T, in_channels] in the selected step. Without the first
  /// block `input` is the state [S + T, C] that the blocks before gave (and is overwritten), without the last
  /// one the result is the state.
  [[nodiscard]] at::Tensor forward(const at::Tensor& input, const FluxConditioning& conditioning,
                                   const ForwardPart& part, nn::Attention& attention) const;

 private:
  [[nodiscard]] at::Tensor embedding(const FluxInputs& inputs) const;
  [[nodiscard]] at::Tensor modulation(const at::Tensor& x) const;
  [[nodiscard]] at::Tensor embed(const at::Tensor& latents, const at::Tensor& text) const;

  FluxConfig config_;
  BlockRange blocks_;
  nn::Weights& weights_;
  std::unique_ptr<nn::Linear> image_in_;
  std::unique_ptr<nn::Linear> text_in_;
  Embedder time_in_;
  std::optional<Embedder> guidance_in_;
  Embedder pooled_in_;
  std::vector<FluxDoubleBlock> double_blocks_;
  std::vector<FluxSingleBlock> single_blocks_;
  std::unique_ptr<nn::Linear> image_out_;
};

}  // namespace xdit::models
