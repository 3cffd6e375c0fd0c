#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "nn/attention.h"
#include "parallel/head_exchange.h"

namespace xdit::parallel {

/// Attention over tokens that are spread over ranks (rounding): Ulysses within neighbours, K and V of their
/// tokens travel around a ring of the others, and partial results are merged by their log-sum-exp in float32
/// (ring attention, Liu et al. 2023). The next K and V travel while these are used.
class RingAttention final : public nn::Attention {
 public:
  /// `group`: the token group, numbered ring first, Ulysses fastest.
  RingAttention(comm::Group& group, const TokenSplit& split, std::int64_t heads, std::int64_t head_dim,
                at::TensorOptions options);
  void begin(std::int64_t layer, const at::Tensor& qkv, const at::Tensor& rotary) override;
  void add(std::int64_t first, const nn::TokenNorms& norms) override;
  void finish(const at::Tensor& out) override;
  [[nodiscard]] bool sends() const override { return true; }

 private:
  void send();  ///< K, V and Q to the neighbours
  /// Tokens of the ring's place `index` (counted from 0, modulo the ring).
  [[nodiscard]] std::int64_t slice_tokens(std::int64_t index) const;

  HeadExchange heads_;
  std::int64_t ring_;         ///< places
  std::int64_t place_;        ///< of this rank
  std::int64_t slot_rows_;    ///< of one slot: K and V of the longest slice
  comm::PeerBuffer inputs_;   ///< the neighbours' K, V and Q, [3, queries, h, D]
  comm::PeerBuffer slots_;    ///< two slots of K and V
  nn::RotatedTokens tokens_;  ///< from begin to finish
  bool sent_ = false;         ///< likewise
};

}  // namespace xdit::parallel
