#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "comm/group.h"
#include "parallel/token_split.h"

namespace xdit::parallel {

/// Ulysses (Jacobs et al. 2023): neighbours swap tokens for heads, before attention and back after it.
/// Without neighbours nothing moves.
class HeadExchange {
 public:
  /// `heads` of the whole token group, `head_dim` channels each.
  HeadExchange(comm::Group& group, const TokenSplit& split, std::int64_t heads, std::int64_t head_dim,
               at::TensorOptions options);

  void select(const TokenPart& part) { part_ = part; }  ///< the tokens of the forwards from here on
  [[nodiscard]] const TokenPart& part() const { return part_; }
  [[nodiscard]] const TokenSplit& split() const { return split_; }
  [[nodiscard]] comm::Group& group() const { return group_; }
  [[nodiscard]] bool swaps() const { return split_.ulysses > 1; }
  [[nodiscard]] const std::vector<int>& neighbours() const { return neighbours_; }  ///< this rank among them
  [[nodiscard]] std::int64_t tokens() const { return split_.tokens(group_.rank(), part_); }
  /// Tokens of the neighbours before neighbour `index`; of all of them.
  [[nodiscard]] std::int64_t tokens_before(std::int64_t index) const;
  [[nodiscard]] std::int64_t queries() const { return tokens_before(split_.ulysses); }
  [[nodiscard]] std::int64_t token_bytes() const { return token_bytes_; }  ///< of the local heads
  [[nodiscard]] comm::Stream stream() const;

  /// `peer`'s heads of rows x [T, H, D] to its buffer, packed from `offset` bytes on.
  void put_heads(std::vector<comm::Put>& puts, const at::Tensor& x, std::int64_t peer,
                 std::int64_t offset) const;
  /// [rows, h, D] of a buffer, from its row `first` on.
  [[nodiscard]] at::Tensor view(const comm::PeerBuffer& buffer, std::int64_t first, std::int64_t rows) const;
  /// Where attention of `queries` [queries, h, D] goes: what give_back takes.
  [[nodiscard]] at::Tensor attended(const at::Tensor& out) const;
  /// y [queries, h, D], each neighbour's tokens in turn, into out [tokens, H * D].
  void give_back(const at::Tensor& y, const at::Tensor& out);

 private:
  comm::Group& group_;
  TokenSplit split_;
  TokenPart part_;
  std::int64_t heads_;
  std::int64_t head_dim_;
  at::TensorOptions options_;
  std::int64_t token_bytes_;
  std::vector<int> neighbours_;
  comm::PeerBuffer outputs_;  ///< [tokens, H, D]
};

}  // namespace xdit::parallel
