#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "comm/group.h"
#include "nn/attention.h"

namespace xdit::parallel {

/// Which tokens of one picture the ranks of a token group hold. Ranks are numbered gather first, Ulysses
/// fastest. Ranges may be uneven or empty.
struct TokenSplit {
  std::vector<comm::Range> text;   ///< by rank
  std::vector<comm::Range> image;  ///< by rank
  std::int64_t ulysses = 1;        ///< ranks that divide the heads between them
};

/// The even split of the tokens over gather x ulysses ranks.
[[nodiscard]] TokenSplit split_tokens(std::int64_t text, std::int64_t image, std::int64_t gather,
                                      std::int64_t ulysses);

/// Attention over tokens that are spread over ranks (exact): Ulysses (Jacobs et al. 2023) swaps tokens for
/// heads within `ulysses` neighbours, and every rank receives all K and V of its heads, at their global
/// position (gather). Both at once is USP (Fang & Zhao 2024) with a gather in place of the ring. One exchange
/// before attention, one after it where heads are divided.
class SplitAttention final : public nn::Attention {
 public:
  /// `group`: the token group. Buffers fit pictures of `split`'s size with `heads` heads of `head_dim`
  /// channels.
  SplitAttention(comm::Group& group, TokenSplit split, std::int64_t heads, std::int64_t head_dim,
                 at::TensorOptions options);
  void attend(std::int64_t layer, std::span<const nn::Stream> streams, const at::Tensor& rotary,
              const at::Tensor& out) override;

 private:
  [[nodiscard]] std::int64_t local_tokens(std::int64_t rank) const;
  /// Tokens of this rank's Ulysses neighbours before those of neighbour `rank`.
  [[nodiscard]] std::int64_t query_offset(std::int64_t rank) const;
  void put_heads(std::vector<comm::Put>& puts, const at::Tensor& x, std::int64_t peer,
                 std::int64_t offset) const;
  void put_tokens(std::vector<comm::Put>& puts, const at::Tensor& x, std::int64_t peer,
                  std::int64_t plane) const;
  [[nodiscard]] comm::Stream stream() const;

  comm::Group& group_;
  TokenSplit split_;
  std::int64_t rank_;
  std::int64_t heads_;
  std::int64_t local_heads_;
  std::int64_t head_dim_;
  std::int64_t all_tokens_;
  at::TensorOptions options_;
  std::int64_t token_bytes_;     ///< of the local heads of a token
  std::vector<int> neighbours_;  ///< that share this rank's keys, Ulysses fastest
  comm::PeerBuffer inputs_;      ///< K, V [2, S + T, h, D], then the neighbours' Q [tokens, h, D]
  comm::PeerBuffer outputs_;     ///< [local tokens, H, D]
};

}  // namespace xdit::parallel
