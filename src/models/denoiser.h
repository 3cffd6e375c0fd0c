#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "models/branch.h"
#include "models/registry.h"
#include "nn/attention.h"
#include "nn/linear.h"
#include "nn/spatial.h"
#include "nn/weights.h"

namespace xdit::models {

/// A network that predicts what a sampler steps with.
class Denoiser {
 public:
  Denoiser() = default;
  Denoiser(const Denoiser&) = delete;
  Denoiser& operator=(const Denoiser&) = delete;
  virtual ~Denoiser() = default;
  [[nodiscard]] virtual std::unique_ptr<Branch> prepare(const PromptEmbedding& prompt,
                                                        const LoopShape& shape) = 0;
  /// Both prompts in one branch, whose predictions are [2, T, C] of one input: the same bits as one by one.
  /// Null where that would not be faster.
  [[nodiscard]] virtual std::unique_ptr<Branch> join(const Branch& /*a*/, const Branch& /*b*/) {
    return nullptr;
  }
  virtual void prepared_all() {}  ///< `prepare` will not be called again
  /// Makes `step` (0-based) the one that the branch's predictions are of.
  virtual void select(const Branch& branch, std::int64_t step) = 0;
  /// Prediction at latents `input`, both in the layout of the loop. A denoiser of some blocks takes the state
  /// [tokens, width] of the one before (and may overwrite it), and gives its own. Equal calls do the same
  /// work in the same memory, whatever the step: one can be captured and replayed.
  [[nodiscard]] virtual at::Tensor predict(const Branch& branch, const at::Tensor& input,
                                           const ForwardPart& part) = 0;
  /// [C, h, w] -> the layout of the loop, and back.
  [[nodiscard]] virtual at::Tensor pack(const at::Tensor& latents) const = 0;
  [[nodiscard]] virtual at::Tensor unpack(const at::Tensor& packed, std::int64_t rows,
                                          std::int64_t columns) const = 0;
  /// Latents of the loop as diffusers hands them to its callbacks.
  [[nodiscard]] virtual at::Tensor as_diffusers(const at::Tensor& packed, std::int64_t /*rows*/,
                                                std::int64_t /*columns*/) const {
    return packed;
  }
};

/// The denoiser of the model's family, or that of some of its blocks. One of tokens exchanges them through
/// `attention`, one of pictures through `spatial`; both and `weights` outlive it. `built`: what its own
/// attentions share with other denoisers.
[[nodiscard]] std::unique_ptr<Denoiser> make_denoiser(const Model& model, BlockRange blocks,
                                                      nn::Weights& weights, const nn::Linears& linears,
                                                      nn::Attention& attention, const nn::Spatial& spatial,
                                                      const std::shared_ptr<nn::cudnn::Attentions>& built);

}  // namespace xdit::models
