#include "parallel/split_spatial.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "nn/group_norm.h"
#include "parallel/device_stream.h"
#include "parallel/displaced_rows.h"

namespace xdit::parallel {
namespace {

std::vector<bool> having_some(const std::vector<comm::Range>& rows) {
  std::vector<bool> some;
  some.reserve(rows.size());
  for (const comm::Range& range : rows) some.push_back(range.count > 0);
  return some;
}

// Who puts to `rank`, or gets from it, in any of two exchanges.
template <class F>
comm::Peers both(F&& peers, const std::vector<comm::Range>& first, const std::vector<comm::Range>& second) {
  comm::Peers all = peers(first);
  for (const int peer : peers(second))
    if (std::find(all.begin(), all.end(), peer) == all.end()) all.push_back(peer);
  return all;
}

}  // namespace

SplitSpatial::SplitSpatial(comm::Group& group, const std::vector<comm::Range>& rows, const SlabBytes& bytes,
                           std::shared_ptr<nn::Convolutions> convolutions)
    : SplitSpatial(group, rows,
                   std::make_shared<FreshRows>(
                       group, rows.at(static_cast<std::size_t>(group.rank())).count > 0, bytes),
                   std::move(convolutions)) {}

SplitSpatial::SplitSpatial(const comm::Group& group, const std::vector<comm::Range>& rows,
                           std::shared_ptr<RowExchange> exchange,
                           std::shared_ptr<nn::Convolutions> convolutions)
    : SplitSpatial(
          std::make_shared<Shared>(
              Shared{.rank = group.rank(), .takes_part = having_some(rows), .exchange = std::move(exchange)}),
          rows, std::move(convolutions)) {
  XDIT_ASSERT(static_cast<int>(rows_.size()) == group.size());
}

SplitSpatial::SplitSpatial(std::shared_ptr<Shared> shared, std::vector<comm::Range> rows,
                           std::shared_ptr<nn::Convolutions> of)
    : Spatial(std::move(of)), shared_(std::move(shared)), rows_(std::move(rows)) {
  for (const comm::Range& range : rows_) all_rows_ += range.count;
  if (all_rows_ <= 1) return;
  std::vector<comm::Range> half = rows_;
  for (comm::Range& range : half) {
    const std::int64_t first = (range.first + 1) / 2;
    range = {first, (range.end() + 1) / 2 - first};
  }
  halved_.reset(new SplitSpatial(shared_, std::move(half), convolutions()));
}

std::int64_t SplitSpatial::scale(std::int64_t rows) const {
  if (own().count == 0) return 1;
  XDIT_ASSERT(rows % own().count == 0);
  return rows / own().count;
}

std::vector<comm::Range> SplitSpatial::ranges(std::int64_t scale) const {
  std::vector<comm::Range> scaled = rows_;
  for (comm::Range& range : scaled) range = {range.first * scale, range.count * scale};
  return scaled;
}

nn::RowPlace SplitSpatial::place(std::int64_t rows) const {
  const std::int64_t times = scale(rows);
  return {times * own().first, rows, times * all_rows_};
}

SplitSpatial::Gathered SplitSpatial::gather(const at::Tensor& mine, RowKind kind) const {
  const at::Tensor rows = mine.contiguous();
  std::vector<std::int64_t> shape = rows.sizes().vec();
  const std::int64_t times = scale(shape[0]);
  const std::vector<comm::Range> owned = ranges(times);
  std::vector<comm::Range> wanted(owned.size());
  shape[0] = times * all_rows_;
  for (std::size_t i = 0; i < owned.size(); ++i)
    if (kind == RowKind::kPicture ? i == 0 : shared_->takes_part[i]) wanted[i] = {0, shape[0]};
  const std::int64_t row_bytes =
      c10::multiply_integers(shape.begin() + 1, shape.end()) * static_cast<std::int64_t>(rows.element_size());
  const int rank = shared_->rank;
  const comm::Slab slab{.data = rows.const_data_ptr(), .row_bytes = row_bytes};
  const RowExchange::Arrived arrived =
      shared_->exchange->exchange({.kind = kind,
                                   .puts = comm::put_rows(slab, owned, wanted, rank),
                                   .from = comm::sources(owned, wanted, rank),
                                   .to = comm::targets(owned, wanted, rank)},
                                  current_stream(rows.device()));
  if (wanted[static_cast<std::size_t>(rank)].count == 0) return {};
  return {at::from_blob(arrived.data, shape, rows.options()), arrived};
}

at::Tensor SplitSpatial::gather_tokens(const at::Tensor& rows) const {
  XDIT_ASSERT(rows.size(0) == 1);
  const Gathered all = gather(rows[0], RowKind::kTokens);
  if (all.arrived.stale) all.rows.narrow(0, place(rows.size(1)).first, rows.size(1)).copy_(rows[0]);
  return all.rows.flatten(0, 1).unsqueeze(0);
}

at::Tensor SplitSpatial::whole_moments(const at::Tensor& rows, std::int64_t row_elements) const {
  XDIT_ASSERT(rows.size(0) == 1);
  const Gathered gathered = gather(rows[0], RowKind::kMoments);
  const at::Tensor all = gathered.rows.unsqueeze(0);
  const nn::RowPlace own = place(rows.size(1));
  if (gathered.arrived.stale && own.count > 0)
    return corrected_moments(all, {own.first, own.count}, rows, row_elements);
  return nn::merge_rows(gathered.arrived.kept ? all.clone() : all, row_elements);
}

at::Tensor SplitSpatial::collect(const at::Tensor& rows) const {
  const at::Tensor all = gather(rows.permute({1, 2, 0}), RowKind::kPicture).rows;  // [H, W, C]
  return all.defined() ? all.permute({2, 0, 1}) : all;
}

void SplitSpatial::fill_halo(const at::Tensor& padded, std::int64_t halo) const {
  const at::Tensor memory = padded.permute({0, 2, 3, 1})[0];  // [h + 2 halo, W, C]
  XDIT_ASSERT(halo <= kHaloRows && padded.size(0) == 1 && memory.is_contiguous());
  const std::int64_t own_rows = memory.size(0) - 2 * halo;
  const auto row_bytes = static_cast<std::int64_t>(memory.nbytes()) / memory.size(0);
  const std::vector<comm::Range> owned = ranges(scale(own_rows));
  const comm::Range all{0, scale(own_rows) * all_rows_};
  std::vector<comm::Range> above(owned.size()), below(owned.size());
  for (std::size_t i = 0; i < owned.size(); ++i) {
    if (!shared_->takes_part[i]) continue;
    above[i] = comm::overlap({owned[i].first - halo, halo}, all);
    below[i] = comm::overlap({owned[i].end(), halo}, all);
  }

  const int rank = shared_->rank;
  const std::int64_t offset = halo * row_bytes;
  const comm::Slab slab{.data = memory.narrow(0, halo, own_rows).const_data_ptr(), .row_bytes = row_bytes};
  std::vector<comm::Put> puts = comm::put_rows(slab, owned, above, rank);
  const std::vector<comm::Put> more = comm::put_rows(slab, owned, below, rank, offset);
  puts.insert(puts.end(), more.begin(), more.end());
  const RowExchange::Arrived halos = shared_->exchange->exchange(
      {.kind = RowKind::kHalo,
       .puts = std::move(puts),
       .from = both([&](const auto& wanted) { return comm::sources(owned, wanted, rank); }, above, below),
       .to = both([&](const auto& wanted) { return comm::targets(owned, wanted, rank); }, above, below)},
      current_stream(padded.device()));

  // Where the picture ends, zeros.
  const auto arrived = [&](std::int64_t rows, std::int64_t at) {
    return at::from_blob(halos.data + at, {rows, memory.size(1), memory.size(2)}, memory.options());
  };
  const std::int64_t rows_above = above[rank].count, rows_below = below[rank].count;
  memory.narrow(0, 0, halo - rows_above).zero_();
  memory.narrow(0, halo - rows_above, rows_above).copy_(arrived(rows_above, 0));
  memory.narrow(0, halo + own_rows, rows_below).copy_(arrived(rows_below, offset));
  memory.narrow(0, halo + own_rows + rows_below, halo - rows_below).zero_();
}

}  // namespace xdit::parallel
