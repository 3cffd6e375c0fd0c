#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

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

}  // namespace xdit::models
