#include "parallel/head_exchange.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "parallel/device_stream.h"

namespace xdit::parallel {

HeadExchange::HeadExchange(comm::Group& group, const TokenSplit& split, std::int64_t heads,
                           std::int64_t head_dim, at::TensorOptions options)
    : group_(group),
      split_(split),
      part_(split.whole()),
      heads_(heads),
      head_dim_(head_dim),
      options_(options),
      token_bytes_(heads / split.ulysses * head_dim * static_cast<std::int64_t>(options.dtype().itemsize())),
      outputs_(group.allocate(split.ulysses > 1 ? tokens() * token_bytes_ * split.ulysses : 0)) {
  XDIT_ASSERT(heads % split_.ulysses == 0 && split_.ranks() == group.size());
  const std::int64_t first = split_.first_neighbour(group.rank());
  for (std::int64_t i = 0; i < split_.ulysses; ++i) neighbours_.push_back(static_cast<int>(first + i));
}

std::int64_t HeadExchange::tokens_before(std::int64_t index) const {
  const std::int64_t first = split_.first_neighbour(group_.rank());
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < index; ++i) tokens += split_.tokens(first + i, part_);
  return tokens;
}

comm::Stream HeadExchange::stream() const {
  return current_stream(options_.device());
}

void HeadExchange::put_heads(std::vector<comm::Put>& puts, const at::Tensor& x, std::int64_t peer,
                             std::int64_t offset) const {
  puts.push_back(
      {.peer = static_cast<int>(peer),
       .source = static_cast<const std::byte*>(x.const_data_ptr()) + peer % split_.ulysses * token_bytes_,
       .rows = x.size(0),
       .row_bytes = token_bytes_,
       .source_stride = x.stride(0) * static_cast<std::int64_t>(x.element_size()),
       .offset = offset,
       .stride = token_bytes_});
}

at::Tensor HeadExchange::view(const comm::PeerBuffer& buffer, std::int64_t first, std::int64_t rows) const {
  return at::from_blob(buffer.data() + first * token_bytes_, {rows, heads_ / split_.ulysses, head_dim_},
                       options_);
}

at::Tensor HeadExchange::attended(const at::Tensor& out) const {
  return swaps() ? at::empty({queries(), heads_ / split_.ulysses, head_dim_}, options_)
                 : out.unflatten(1, {heads_, head_dim_});
}

void HeadExchange::give_back(const at::Tensor& y, const at::Tensor& out) {
  if (!swaps()) return;  // it is there
  std::vector<comm::Put> puts;
  for (std::int64_t i = 0; i < split_.ulysses; ++i) {
    const int peer = neighbours_.at(static_cast<std::size_t>(i));
    puts.push_back(
        {.peer = peer,
         .source = static_cast<const std::byte*>(y.const_data_ptr()) + tokens_before(i) * token_bytes_,
         .rows = split_.tokens(peer, part_),
         .row_bytes = token_bytes_,
         .source_stride = token_bytes_,
         .offset = group_.rank() % split_.ulysses * token_bytes_,
         .stride = token_bytes_ * split_.ulysses});
  }
  outputs_.post(neighbours_, stream());
  outputs_.put(puts, neighbours_, stream(), "heads");
  outputs_.arrive(neighbours_, stream(), "heads");
  out.copy_(at::from_blob(outputs_.data(), {tokens(), heads_ * head_dim_}, options_));
}

}  // namespace xdit::parallel
