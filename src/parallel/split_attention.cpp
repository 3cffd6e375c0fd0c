#include "parallel/split_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace xdit::parallel {

SplitAttention::SplitAttention(comm::Group& group, const TokenSplit& split, std::int64_t heads,
                               std::int64_t head_dim, at::TensorOptions options, KeptKeys kept,
                               std::shared_ptr<nn::cudnn::Attentions> in_place)
    : heads_(group, split, heads, head_dim, options),
      attention_(std::move(in_place)),
      all_tokens_(split.all_tokens()),
      kept_(kept),
      others_(group.everyone()),
      beside_(options.device(), /*urgent=*/true) {
  std::erase(others_, group.rank());
  const std::int64_t rows = 2 * all_tokens_ + (heads_.swaps() ? heads_.queries() : 0);
  const std::int64_t buffers = std::max<std::int64_t>(1, kept.layers.count * kept.branches);
  for (std::int64_t i = 0; i < buffers; ++i) {
    inputs_.push_back(group.allocate(rows * heads_.token_bytes()));
    inputs_.back().post(others_, heads_.stream());  // as after each use: senders never wait for it
  }
}

void SplitAttention::select(const TokenPart& part, std::int64_t branch) {
  heads_.select(part);
  branch_ = branch;
}

at::Tensor SplitAttention::keys_and_values(const Range& tokens) const {
  return heads_.view(*now_, 0, 2 * all_tokens_)
      .unflatten(0, {2, all_tokens_})
      .narrow(1, tokens.first, tokens.count);
}

// Every token at its global position. Undivided heads are there on this rank.
void SplitAttention::put_tokens(std::vector<comm::Put>& puts, std::int64_t plane, std::int64_t peer,
                                const Range& tokens) const {
  const at::Tensor& divided = plane == 0 ? tokens_.key : tokens_.value;
  std::int64_t row = 0;
  for (const Range& range : heads_.split().positions(heads_.group().rank(), heads_.part())) {
    const std::int64_t first = std::max(row, tokens.first);
    const std::int64_t end = std::min(row + range.count, tokens.end());
    if (first < end) {
      const Range place{range.first + first - row, end - first};
      const at::Tensor x =
          heads_.swaps() ? divided.narrow(0, first, place.count) : keys_and_values(place)[plane];
      heads_.put_heads(puts, x, peer, (plane * all_tokens_ + place.first) * heads_.token_bytes());
    }
    row += range.count;
  }
}

void SplitAttention::begin(std::int64_t layer, const at::Tensor& qkv, const at::Tensor& rotary) {
  XDIT_ASSERT(rotary.size(0) == heads_.tokens());
  puts_.clear();
  const std::int64_t index =
      kept_.layers.count == 0 ? 0 : branch_ * kept_.layers.count + layer - kept_.layers.first;
  now_ = &inputs_.at(static_cast<std::size_t>(index));
  std::vector<at::Tensor> places;
  if (!heads_.swaps())
    for (const Range& range : heads_.split().positions(heads_.group().rank(), heads_.part()))
      places.push_back(keys_and_values(range));
  tokens_ = nn::RotatedTokens(qkv, rotary, std::move(places));
  now_->ready(others_, heads_.stream(), "attention");
}

void SplitAttention::add(std::int64_t first, const nn::TokenNorms& norms) {
  tokens_.add(first, norms);
  const int rank = heads_.group().rank();
  const std::int64_t row = 2 * all_tokens_ + heads_.tokens_before(rank % heads_.split().ulysses) + first;
  std::vector<comm::Put> own, puts;
  for (int peer = 0; peer < heads_.group().size(); ++peer) {
    std::vector<comm::Put>& to = peer == rank ? own : puts;
    for (const std::int64_t plane : {0, 1}) put_tokens(to, plane, peer, {first, norms.tokens});
    if (heads_.swaps() && std::ranges::find(heads_.neighbours(), peer) != heads_.neighbours().end())
      heads_.put_heads(to, tokens_.query.narrow(0, first, norms.tokens), peer, row * heads_.token_bytes());
  }
  beside_.begin();
  now_->send(puts, others_, beside_.stream());
  now_->place(own, heads_.stream());  // undivided heads are there already
  puts_.insert(puts_.end(), puts.begin(), puts.end());
}

void SplitAttention::finish(const at::Tensor& out) {
  XDIT_ASSERT(tokens_.count == heads_.tokens());
  now_->sent(puts_, others_, beside_.stream());
  beside_.end();
  beside_.wait();  // its sources may go, and the next layer may write this rank's rows of *now_
  now_->arrive(others_, heads_.stream(), "attention");
  const at::Tensor queries =
      heads_.swaps() ? heads_.view(*now_, 2 * all_tokens_, heads_.queries()) : tokens_.query;
  const at::Tensor attended = heads_.attended(out);
  attention_(attended, queries, heads_.view(*now_, 0, all_tokens_),
             heads_.view(*now_, all_tokens_, all_tokens_));
  now_->post(others_, heads_.stream());
  heads_.give_back(attended, out);
  tokens_ = {};
}

}  // namespace xdit::parallel
