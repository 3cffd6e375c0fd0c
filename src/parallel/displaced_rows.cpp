#include "parallel/displaced_rows.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/error.h"
#include "nn/group_norm.h"

namespace xdit::parallel {

DisplacedRows::DisplacedRows(comm::Group& group, bool takes_part, std::span<const RowBytes> exchanges,
                             std::int64_t branches)
    : exchanges_(static_cast<std::int64_t>(exchanges.size())) {
  kept_.reserve(exchanges.size() * static_cast<std::size_t>(branches));
  for (std::int64_t branch = 0; branch < branches; ++branch)
    for (const RowBytes& half : exchanges)
      kept_.push_back({.half = half, .buffer = group.allocate(takes_part ? 2 * half.bytes : 0)});
}

void DisplacedRows::begin(std::int64_t branch, bool synchronous) {
  XDIT_ASSERT(next_ == 0 || next_ == exchanges_);
  begin_ = branch * exchanges_;
  next_ = 0;
  synchronous_ = synchronous;
}

RowExchange::Arrived DisplacedRows::exchange(const RowTransfer& transfer, comm::Stream stream) {
  XDIT_ASSERT(next_ < exchanges_);
  const bool stale = !synchronous_ && next_ > 0;
  Kept& kept = kept_.at(static_cast<std::size_t>(begin_ + next_++));
  XDIT_ASSERT(kept.half.kind == transfer.kind && (!stale || kept.put > 0));
  // What was read last has made room for the transfer after the one that may be on its way.
  if (Kept* const read = std::exchange(reading_, &kept)) read->buffer.post(read->from, stream);
  if (kept.put == 0) kept.buffer.post(transfer.from, stream);
  kept.from = transfer.from;

  const char* const name = name_of(transfer.kind);
  std::vector<comm::Put> puts = transfer.puts;
  for (comm::Put& put : puts) put.offset += kept.put % 2 * kept.half.bytes;
  kept.buffer.put(puts, transfer.to, stream, name);
  ++kept.put;
  const std::int64_t wanted = stale ? kept.put - 1 : kept.put;
  for (; kept.arrived < wanted; ++kept.arrived) kept.buffer.arrive(transfer.from, stream, name);
  return {.data = kept.buffer.data() + (wanted - 1) % 2 * kept.half.bytes, .kept = true, .stale = stale};
}

at::Tensor corrected_moments(const at::Tensor& stale, comm::Range own, const at::Tensor& fresh,
                             std::int64_t row_elements) {
  const at::Tensor then = nn::merge_rows(stale.narrow(1, own.first, own.count).clone(), row_elements);
  const at::Tensor now = nn::merge_rows(fresh, row_elements);
  const at::Tensor others =
      nn::merge_rows(stale, row_elements) - then;  // how the whole differs from own rows
  at::Tensor whole = now + others;
  // E[x^2] - E[x]^2, both displaced.
  const at::Tensor moved = now.select(-1, 0) - then.select(-1, 0);
  const at::Tensor variance = whole.select(-1, 1).addcmul_(moved, others.select(-1, 0), -2);
  variance.copy_(at::where(variance < 0, now.select(-1, 1), variance));
  return whole;
}

}  // namespace xdit::parallel
