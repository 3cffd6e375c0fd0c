#include "parallel/split_attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "core/error.h"
#include "nn/ops.h"
#include "parallel/device_stream.h"

namespace xdit::parallel {
namespace {

comm::Range part(std::int64_t total, std::int64_t index, std::int64_t parts) {
  const std::int64_t first = total * index / parts;
  return {first, total * (index + 1) / parts - first};
}

std::int64_t total(const std::vector<comm::Range>& ranges) {
  std::int64_t sum = 0;
  for (const comm::Range& range : ranges) sum += range.count;
  return sum;
}

}  // namespace

TokenSplit split_tokens(std::int64_t text, std::int64_t image, std::int64_t gather, std::int64_t ulysses) {
  TokenSplit split{.text = {}, .image = {}, .ulysses = ulysses};
  for (std::int64_t i = 0; i < gather * ulysses; ++i) {
    split.text.push_back(part(text, i, gather * ulysses));
    split.image.push_back(part(image, i, gather * ulysses));
  }
  return split;
}

SplitAttention::SplitAttention(comm::Group& group, TokenSplit split, std::int64_t heads,
                               std::int64_t head_dim, at::TensorOptions options)
    : group_(group),
      split_(std::move(split)),
      rank_(group.rank()),
      heads_(heads),
      local_heads_(heads / split_.ulysses),
      head_dim_(head_dim),
      all_tokens_(total(split_.text) + total(split_.image)),
      options_(options),
      token_bytes_(local_heads_ * head_dim * static_cast<std::int64_t>(options.dtype().itemsize())),
      inputs_(group.allocate(token_bytes_ * (2 * all_tokens_ + query_offset(split_.ulysses)))),
      outputs_(group.allocate(local_tokens(rank_) * token_bytes_ * split_.ulysses)) {
  XDIT_ASSERT(heads % split_.ulysses == 0);
  XDIT_ASSERT(static_cast<std::int64_t>(split_.text.size()) == group.size());
  const std::int64_t first = rank_ / split_.ulysses * split_.ulysses;
  for (std::int64_t i = 0; i < split_.ulysses; ++i) neighbours_.push_back(static_cast<int>(first + i));
}

std::int64_t SplitAttention::local_tokens(std::int64_t rank) const {
  const auto at = static_cast<std::size_t>(rank);
  return split_.text.at(at).count + split_.image.at(at).count;
}

std::int64_t SplitAttention::query_offset(std::int64_t neighbour) const {
  const std::int64_t first = rank_ / split_.ulysses * split_.ulysses;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < neighbour; ++i) tokens += local_tokens(first + i);
  return tokens;
}

comm::Stream SplitAttention::stream() const {
  return current_stream(options_.device());
}

// The peer's heads of x [T, H, D]'s rows, one after the other from `offset` of its inputs.
void SplitAttention::put_heads(std::vector<comm::Put>& puts, const at::Tensor& x, std::int64_t peer,
                               std::int64_t offset) const {
  const std::int64_t row = token_bytes_ * split_.ulysses;
  puts.push_back(
      {.peer = static_cast<int>(peer),
       .source = static_cast<const std::byte*>(x.const_data_ptr()) + peer % split_.ulysses * token_bytes_,
       .rows = x.size(0),
       .row_bytes = token_bytes_,
       .source_stride = row,
       .offset = offset,
       .stride = token_bytes_});
}

// The same of K (plane 0) or V (plane 1), text and image tokens each at their global position.
void SplitAttention::put_tokens(std::vector<comm::Put>& puts, const at::Tensor& x, std::int64_t peer,
                                std::int64_t plane) const {
  const comm::Range text = split_.text.at(static_cast<std::size_t>(rank_));
  const comm::Range image = split_.image.at(static_cast<std::size_t>(rank_));
  const std::int64_t start = plane * all_tokens_;
  put_heads(puts, x.narrow(0, 0, text.count), peer, (start + text.first) * token_bytes_);
  put_heads(puts, x.narrow(0, text.count, image.count), peer,
            (start + total(split_.text) + image.first) * token_bytes_);
}

void SplitAttention::attend(std::int64_t /*layer*/, std::span<const nn::Stream> streams,
                            const at::Tensor& rotary, const at::Tensor& out) {
  const std::int64_t tokens = local_tokens(rank_);
  XDIT_ASSERT(rotary.size(0) == tokens);
  const at::Tensor q = at::empty({tokens, heads_, head_dim_}, options_);
  const at::Tensor k = at::empty_like(q);
  const at::Tensor v = at::empty_like(q);
  nn::norm_and_rotate(streams, rotary, q, k, v);

  std::vector<comm::Put> puts;
  for (std::int64_t peer = 0; peer < group_.size(); ++peer) {
    put_tokens(puts, k, peer, 0);
    put_tokens(puts, v, peer, 1);
  }
  if (split_.ulysses > 1)
    for (const int peer : neighbours_)
      put_heads(puts, q, peer, (2 * all_tokens_ + query_offset(rank_ % split_.ulysses)) * token_bytes_);
  group_.all_to_all_v(puts, inputs_, stream());

  const auto view = [&](const comm::PeerBuffer& buffer, std::int64_t first, std::int64_t rows,
                        std::int64_t heads) {
    return at::from_blob(buffer.data() + first * token_bytes_, {rows, heads, head_dim_}, options_);
  };
  const auto batched = [](const at::Tensor& x) { return x.unsqueeze(0).transpose(1, 2); };  // [1, h, T, D]
  const at::Tensor queries =
      split_.ulysses == 1 ? q : view(inputs_, 2 * all_tokens_, query_offset(split_.ulysses), local_heads_);
  const at::Tensor y =
      nn::scaled_dot_product(batched(queries), batched(view(inputs_, 0, all_tokens_, local_heads_)),
                             batched(view(inputs_, all_tokens_, all_tokens_, local_heads_)),
                             1 / std::sqrt(static_cast<double>(head_dim_)))
          .squeeze(0)
          .transpose(0, 1);  // [queries, h, D]
  const at::Tensor to = out.unflatten(1, {heads_, head_dim_});
  if (split_.ulysses == 1) {
    to.copy_(y);
    return;
  }
  const at::Tensor mine = y.contiguous();
  std::vector<comm::Put> back;
  for (std::int64_t i = 0; i < split_.ulysses; ++i) {
    const int peer = neighbours_.at(static_cast<std::size_t>(i));
    back.push_back(
        {.peer = peer,
         .source = static_cast<const std::byte*>(mine.const_data_ptr()) + query_offset(i) * token_bytes_,
         .rows = local_tokens(peer),
         .row_bytes = token_bytes_,
         .source_stride = token_bytes_,
         .offset = rank_ % split_.ulysses * token_bytes_,
         .stride = token_bytes_ * split_.ulysses});
  }
  group_.all_to_all_v(back, outputs_, stream());
  to.copy_(view(outputs_, 0, tokens, heads_));
}

}  // namespace xdit::parallel
