#include "parallel/split_attention.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "nn/ops.h"

namespace xdit::parallel {

SplitAttention::SplitAttention(comm::Group& group, const TokenSplit& split, std::int64_t heads,
                               std::int64_t head_dim, at::TensorOptions options, KeptKeys kept)
    : heads_(group, split, heads, head_dim, options), all_tokens_(split.all_tokens()), kept_(kept) {
  const std::int64_t rows = 2 * all_tokens_ + (heads_.swaps() ? heads_.queries() : 0);
  const std::int64_t buffers = std::max<std::int64_t>(1, kept.layers.count * kept.branches);
  for (std::int64_t i = 0; i < buffers; ++i) inputs_.push_back(group.allocate(rows * heads_.token_bytes()));
}

void SplitAttention::select(const TokenPart& part, std::int64_t branch) {
  heads_.select(part);
  branch_ = branch;
}

// The peer's heads of K (plane 0) or V (plane 1), every token at its global position.
void SplitAttention::put_tokens(std::vector<comm::Put>& puts, const at::Tensor& x, std::int64_t peer,
                                std::int64_t plane) const {
  std::int64_t row = 0;
  for (const Range& range : heads_.split().positions(heads_.group().rank(), heads_.part())) {
    heads_.put_heads(puts, x.narrow(0, row, range.count), peer,
                     (plane * all_tokens_ + range.first) * heads_.token_bytes());
    row += range.count;
  }
}

void SplitAttention::attend(std::int64_t layer, const at::Tensor& qkv, std::span<const nn::TokenNorms> norms,
                            const at::Tensor& rotary, const at::Tensor& out) {
  XDIT_ASSERT(rotary.size(0) == heads_.tokens());
  const at::Tensor q = heads_.empty_heads();
  const at::Tensor k = at::empty_like(q);
  const at::Tensor v = qkv.select(1, 2);
  nn::norm_and_rotate(qkv, norms, rotary, q, k);

  comm::Group& group = heads_.group();
  const std::int64_t index =
      kept_.layers.count == 0 ? 0 : branch_ * kept_.layers.count + layer - kept_.layers.first;
  comm::PeerBuffer& inputs = inputs_.at(static_cast<std::size_t>(index));
  std::vector<comm::Put> puts;
  for (std::int64_t peer = 0; peer < group.size(); ++peer) {
    put_tokens(puts, k, peer, 0);
    put_tokens(puts, v, peer, 1);
  }
  const std::int64_t mine = group.rank() % heads_.split().ulysses;
  if (heads_.swaps())
    for (const int peer : heads_.neighbours())
      heads_.put_heads(puts, q, peer, (2 * all_tokens_ + heads_.tokens_before(mine)) * heads_.token_bytes());
  group.all_to_all_v(puts, inputs, heads_.stream());

  const at::Tensor queries = heads_.swaps() ? heads_.view(inputs, 2 * all_tokens_, heads_.queries()) : q;
  heads_.give_back(attend_rows(queries, heads_.view(inputs, 0, all_tokens_),
                               heads_.view(inputs, all_tokens_, all_tokens_)),
                   out);
}

}  // namespace xdit::parallel
