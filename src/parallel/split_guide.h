#pragma once
#include <optional>

#include "comm/group.h"
#include "parallel/loop.h"
#include "parallel/token_split.h"

namespace xdit::parallel {

/// One branch a rank (exact): rank 0 of the group computes the positive one, rank 1 the negative one, and
/// both get both. Each rank needs its own branch of the Guidance only.
class SplitGuide final : public Guide {
 public:
  explicit SplitGuide(comm::Group& group) : group_(group) {}
  [[nodiscard]] std::vector<const models::Branch*> branches(const Guidance& guidance) const override;
  /// The first prediction is the largest.
  [[nodiscard]] at::Tensor combine(std::span<const at::Tensor> predictions,
                                   const Guidance& guidance) override;

 private:
  comm::Group& group_;
  std::optional<comm::PeerBuffer> outputs_;  ///< [2, local latents]
};

/// Rows [T, C] of all ranks of a token group in the order of tokens, on every one of them: each holds those
/// of its image tokens. One use at a time.
class TokenGather {
 public:
  TokenGather(comm::Group& group, TokenSplit split) : group_(group), split_(std::move(split)) {}
  [[nodiscard]] at::Tensor operator()(const at::Tensor& rows);

 private:
  comm::Group& group_;
  TokenSplit split_;
  std::optional<comm::PeerBuffer> all_;
};

}  // namespace xdit::parallel
