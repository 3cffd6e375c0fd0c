#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <vector>

#include "models/registry.h"
#include "nn/attention.h"
#include "nn/linear.h"
#include "nn/spatial.h"
#include "nn/weights.h"

namespace xdit::models {

/// A prompt as the encoders give it.
struct PromptEmbedding {
  at::Tensor tokens;  ///< [S, D]
  at::Tensor pooled;  ///< [P]
};

/// Tokens [first, first + count) of a sequence.
struct TokenRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
};
/// Blocks of a denoiser, likewise.
struct BlockRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
  [[nodiscard]] std::int64_t end() const { return first + count; }
};

/// What a picture's loop fixes beforehand.
struct LoopShape {
  std::span<const float> timesteps;  ///< of the steps, as the scheduler gives them: 1000 is noise
  double guidance = 0;
  std::span<const double> size_ids;  ///< for models that embed them: SDXL's original, crop and target sizes
  std::int64_t latent_rows = 0;
  std::int64_t latent_columns = 0;
  TokenRange text;                    ///< that forwards compute; the attention sees to the others
  std::span<const TokenRange> image;  ///< likewise; the loop's latents hold these, one range after the other
};

/// The tokens of one forward among those of a branch: image tokens from `image_first` on, as many as the
/// input holds, and all its text tokens (then image_first is 0) or none.
struct ForwardPart {
  bool text = true;
  std::int64_t image_first = 0;
};

/// One prompt, prepared: everything that does not depend on the latents, for all steps.
class Branch {
 public:
  Branch() = default;
  Branch(const Branch&) = delete;
  Branch& operator=(const Branch&) = delete;
  virtual ~Branch() = default;
  /// All that predictions read.
  [[nodiscard]] virtual std::vector<at::Tensor> tensors() const = 0;
  /// The same in memory of its own.
  [[nodiscard]] virtual std::unique_ptr<Branch> clone() const = 0;
};

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
/// `attention`, one of pictures through `spatial`; both and `weights` outlive it.
[[nodiscard]] std::unique_ptr<Denoiser> make_denoiser(const Model& model, BlockRange blocks,
                                                      nn::Weights& weights, const nn::Linears& linears,
                                                      nn::Attention& attention, const nn::Spatial& spatial);

}  // namespace xdit::models
