#include "parallel/ring_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"

namespace xdit::parallel {

RingAttention::RingAttention(comm::Group& group, const TokenSplit& split, std::int64_t heads,
                             std::int64_t head_dim, at::TensorOptions options)
    : heads_(group, split, heads, head_dim, options),
      ring_(group.size() / split.ulysses),
      place_(group.rank() / split.ulysses),
      slot_rows_([this] {
        std::int64_t longest = 0;
        for (std::int64_t i = 0; i < ring_; ++i) longest = std::max(longest, slice_tokens(i));
        return 2 * longest;
      }()),
      inputs_(group.allocate(3 * heads_.queries() * heads_.token_bytes())),
      slots_(group.allocate(2 * slot_rows_ * heads_.token_bytes())) {}

std::int64_t RingAttention::slice_tokens(std::int64_t index) const {
  const TokenSplit& split = heads_.split();
  const std::int64_t first = (index % ring_ + ring_) % ring_ * split.ulysses;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < split.ulysses; ++i) tokens += split.tokens(first + i, heads_.part());
  return tokens;
}

void RingAttention::begin(std::int64_t /*layer*/, const at::Tensor& qkv, const at::Tensor& rotary) {
  XDIT_ASSERT(rotary.size(0) == heads_.tokens());
  tokens_ = nn::RotatedTokens(qkv, rotary);
}

void RingAttention::add(std::int64_t first, const nn::TokenNorms& norms) {
  tokens_.add(first, norms);
  if (tokens_.count == heads_.tokens() && !std::exchange(sent_, true)) send();
}

void RingAttention::send() {
  XDIT_ASSERT(tokens_.count == heads_.tokens());
  const std::array sent{tokens_.key, tokens_.value, tokens_.query};
  const std::int64_t before = heads_.tokens_before(heads_.group().rank() % heads_.split().ulysses);
  std::vector<comm::Put> puts;
  for (const int peer : heads_.neighbours())
    for (std::size_t plane = 0; plane < sent.size(); ++plane)
      heads_.put_heads(puts, sent[plane], peer,
                       (static_cast<std::int64_t>(plane) * heads_.queries() + before) * heads_.token_bytes());
  inputs_.post(heads_.neighbours(), heads_.stream());
  inputs_.put(puts, heads_.neighbours(), heads_.stream(), "heads");
}

void RingAttention::finish(const at::Tensor& out) {
  if (!std::exchange(sent_, false)) send();  // nobody has added any
  const std::int64_t bytes = heads_.token_bytes();
  const comm::Stream stream = heads_.stream();
  const std::int64_t ulysses = heads_.split().ulysses;
  const int rank = heads_.group().rank();
  const std::int64_t queries = heads_.queries();
  inputs_.arrive(heads_.neighbours(), stream, "heads");

  const auto batched = [](const at::Tensor& x) { return x.unsqueeze(0).transpose(1, 2); };  // [1, h, T, D]
  const at::Tensor all_queries = batched(heads_.view(inputs_, 2 * queries, queries));
  const double scale = 1 / std::sqrt(static_cast<double>(all_queries.size(3)));
  const int next = static_cast<int>((rank + ulysses) % heads_.group().size());
  const int previous = static_cast<int>((rank - ulysses + heads_.group().size()) % heads_.group().size());
  nn::AttentionPart sum;
  at::Tensor keys = heads_.view(inputs_, 0, queries);
  at::Tensor values = heads_.view(inputs_, queries, queries);
  for (std::int64_t turn = 0; turn < ring_; ++turn) {
    const std::int64_t slot = turn % 2 * slot_rows_;  // that receives what the next turn uses
    const bool last = turn + 1 == ring_;
    if (!last) {
      std::vector<comm::Put> onward;
      for (const auto& [plane, x] : {std::pair<std::int64_t, at::Tensor>{0, keys}, {1, values}})
        onward.push_back({.peer = next,
                          .source = x.const_data_ptr(),
                          .rows = 1,
                          .row_bytes = x.size(0) * bytes,
                          .source_stride = 0,
                          .offset = (slot + plane * x.size(0)) * bytes});
      slots_.post({previous}, stream);
      slots_.put(onward, {next}, stream, "ring");
    }
    if (keys.size(0) > 0)
      nn::merge(sum, nn::partial_attention(all_queries, batched(keys), batched(values), scale));
    if (last) break;
    const std::int64_t tokens = slice_tokens(place_ - turn - 1);
    slots_.arrive({previous}, stream, "ring");
    keys = heads_.view(slots_, slot, tokens);
    values = heads_.view(slots_, slot + tokens, tokens);
  }
  const at::Tensor attended = heads_.attended(out);
  attended.copy_(sum.out.squeeze(0).transpose(0, 1));
  heads_.give_back(attended, out);
  tokens_ = {};
}

}  // namespace xdit::parallel
