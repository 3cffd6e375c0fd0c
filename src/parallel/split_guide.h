#pragma once
#include <optional>

#include "comm/group.h"
#include "parallel/loop.h"

namespace xdit::parallel {

/// One branch a rank (exact): rank 0 of the group computes the positive one, rank 1 the negative one, and
/// both get both. Each rank needs its own branch of the Guidance only.
class SplitGuide final : public Guide {
 public:
  explicit SplitGuide(comm::Group& group) : group_(group) {}
  [[nodiscard]] at::Tensor predict(models::Denoiser& denoiser, const Guidance& guidance,
                                   const at::Tensor& latents, std::int64_t step) override;

 private:
  comm::Group& group_;
  std::optional<comm::PeerBuffer> outputs_;  ///< [2, local latents]
};

/// Rows [T, C] of all ranks of a token group in the order of tokens, on every one of them: `rows` holds those
/// of ranges[rank]. One use at a time.
class TokenGather {
 public:
  TokenGather(comm::Group& group, std::vector<comm::Range> ranges)
      : group_(group), ranges_(std::move(ranges)) {}
  [[nodiscard]] at::Tensor operator()(const at::Tensor& rows);

 private:
  comm::Group& group_;
  std::vector<comm::Range> ranges_;
  std::optional<comm::PeerBuffer> all_;
};

}  // namespace xdit::parallel
