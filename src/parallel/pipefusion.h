#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "comm/group.h"
#include "parallel/loop.h"
#include "parallel/split_attention.h"

namespace xdit::parallel {

/// PipeFusion (Fang et al. 2024): stages hold blocks, bands of the picture flow through them one after the
/// other and attend to keys and values that are one step old where a band has not come by yet (approximate).
/// Text is computed with the first band and kept for the others. The first `warmup` steps take the whole
/// picture at once, so with warmup = steps the result is the serial loop's, bit for bit.
class PipefusionLoop final : public Loop {
 public:
  struct Shape {
    std::int64_t width = 0;     ///< channels of the state between blocks
    std::int64_t channels = 0;  ///< of the loop's latents
    std::int64_t branches = 1;  ///< prompts that this rank computes
    std::int64_t warmup = 1;
  };
  /// `stages`: the ranks that hold the same tokens, in the order of blocks; `split` and `token_rank`: their
  /// tokens. `attention` keeps the keys of the stage's layers.
  PipefusionLoop(comm::Group& stages, const TokenSplit& split, std::int64_t token_rank,
                 SplitAttention& attention, const Shape& shape, at::TensorOptions options);

  /// The result is on every stage; on_step's latents on the first one.
  [[nodiscard]] at::Tensor run(models::Denoiser& denoiser, const schedulers::Sampler& sampler, Guide& guide,
                               const Guidance& guidance, const Start& start, const OnStep& on_step) override;

 private:
  struct Picture;  ///< what one run holds
  void run_part(Picture& picture, std::int64_t step, const TokenPart& part);
  [[nodiscard]] at::Tensor receive(comm::PeerBuffer& from, int peer, Range bands, std::int64_t first_row,
                                   std::int64_t rows, std::int64_t columns, const char* operation) const;
  void send(comm::PeerBuffer& to, int peer, const at::Tensor& rows, Range bands, std::int64_t first_row,
            std::int64_t text, const char* operation) const;
  void collect(Picture& picture, Range bands);  ///< new latents of these bands, on the first stage
  void step(Picture& picture, std::int64_t step, Range bands, const at::Tensor& velocity);

  [[nodiscard]] bool first() const { return stages_.rank() == 0; }
  [[nodiscard]] bool last() const { return stages_.rank() + 1 == stages_.size(); }
  [[nodiscard]] std::int64_t state_rows(std::int64_t branch, std::int64_t band) const;
  [[nodiscard]] std::int64_t rows_before(std::int64_t band) const;  ///< image tokens of the bands before

  comm::Group& stages_;
  TokenSplit split_;
  std::int64_t token_rank_;
  SplitAttention& attention_;
  Shape shape_;
  at::TensorOptions options_;
  comm::PeerBuffer states_;   ///< [branches, text and image tokens, width] from the stage before
  comm::PeerBuffer latents_;  ///< [image tokens, channels], on the first stage from the last one
  std::optional<comm::PeerBuffer> result_;
};

}  // namespace xdit::parallel
