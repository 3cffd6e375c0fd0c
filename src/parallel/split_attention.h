#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "nn/attention.h"
#include "parallel/device_stream.h"
#include "parallel/head_exchange.h"

namespace xdit::parallel {

/// What attention keeps from one forward to the next: K and V of each layer and branch (PipeFusion, Fang et
/// al. 2024). A forward of some bands replaces their tokens and attends to all.
struct KeptKeys {
  Range layers{};             ///< empty: nothing is kept
  std::int64_t branches = 1;  ///< prompts that are denoised in turn
};

/// Attention over tokens that are spread over ranks (exact): Ulysses within `ulysses` neighbours, and every
/// rank receives all K and V of its heads, at their global position (gather). Both at once is USP (Fang &
/// Zhao 2024) with a gather in place of the ring. One exchange before attention, one after it where heads are
/// divided.
class SplitAttention final : public nn::Attention {
 public:
  /// `group`: the token group. Buffers fit pictures of `split`'s size.
  SplitAttention(comm::Group& group, const TokenSplit& split, std::int64_t heads, std::int64_t head_dim,
                 at::TensorOptions options, KeptKeys kept = {},
                 std::shared_ptr<nn::cudnn::Attentions> in_place = std::make_shared<nn::cudnn::Attentions>());
  /// The tokens and the branch of the forwards from here on.
  void select(const TokenPart& part, std::int64_t branch);
  void begin(std::int64_t layer, const at::Tensor& qkv, const at::Tensor& rotary) override;
  void add(std::int64_t first, const nn::TokenNorms& norms) override;
  void finish(const at::Tensor& out) override;
  [[nodiscard]] bool sends() const override { return true; }

 private:
  /// [2, tokens.count, h, D] of now_.
  [[nodiscard]] at::Tensor keys_and_values(const Range& tokens) const;
  /// The peer's heads of K (plane 0) or V (plane 1) of this rank's `tokens`.
  void put_tokens(std::vector<comm::Put>& puts, std::int64_t plane, std::int64_t peer,
                  const Range& tokens) const;

  HeadExchange heads_;
  nn::TokenAttention attention_;
  std::int64_t all_tokens_;
  KeptKeys kept_;
  std::int64_t branch_ = 0;
  comm::Peers others_;
  std::vector<comm::PeerBuffer> inputs_;  ///< K, V [2, S + T, h, D], then the neighbours' Q [queries, h, D]
  SideStream beside_;                     ///< for what goes to other ranks; nothing is awaited on it
  nn::RotatedTokens tokens_;              ///< from begin to finish
  comm::PeerBuffer* now_ = nullptr;       ///< of inputs_, likewise
  std::vector<comm::Put> puts_;           ///< to others, likewise
};

}  // namespace xdit::parallel
