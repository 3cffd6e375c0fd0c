#include "parallel/split_spatial.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "parallel/device_stream.h"

namespace xdit::parallel {
namespace {

constexpr std::int64_t kHalo = 1;  // rows, at most

// Who puts to `rank`, or gets from it, in any of two exchanges.
template <class F>
comm::Peers both(F&& peers, const std::vector<comm::Range>& first, const std::vector<comm::Range>& second) {
  comm::Peers all = peers(first);
  for (const int peer : peers(second))
    if (std::find(all.begin(), all.end(), peer) == all.end()) all.push_back(peer);
  return all;
}

}  // namespace

SlabBytes slab_bytes(const models::VaeConfig& config, std::int64_t rows, std::int64_t columns,
                     std::int64_t element_bytes) {
  std::int64_t widest = config.latent_channels;  // channels times what the level is wider than the latents
  std::int64_t inputs = config.channels.back();
  for (std::size_t level = 0; level < config.channels.size(); ++level) {
    const std::int64_t outputs = config.channels[config.channels.size() - 1 - level];
    widest = std::max(widest, std::max(inputs, outputs) << level);
    inputs = outputs;
  }
  const std::int64_t scale = config.downscale();
  return {.row = widest * columns * element_bytes,
          .moments = rows * scale * config.groups * 2 * static_cast<std::int64_t>(sizeof(float)),
          .tokens = config.mid_attention ? rows * columns * 2 * config.channels.back() * element_bytes : 0,
          .picture = rows * columns * scale * scale * config.out_channels * element_bytes};
}

SplitSpatial::SplitSpatial(comm::Group& group, std::vector<comm::Range> rows, const SlabBytes& bytes)
    : group_(group),
      rows_(std::move(rows)),
      all_rows_(0),
      halos_(group.allocate(has_rows() ? 2 * kHalo * bytes.row : 0)),
      moments_(group.allocate(has_rows() ? bytes.moments : 0)),
      tokens_(group.allocate(has_rows() ? bytes.tokens : 0)),
      picture_(group.allocate(group.rank() == 0 ? bytes.picture : 0)) {
  XDIT_ASSERT(static_cast<int>(rows_.size()) == group.size());
  for (const comm::Range& range : rows_) all_rows_ += range.count;
}

std::vector<comm::Range> SplitSpatial::ranges(std::int64_t mine) const {
  const std::int64_t latent_rows = rows_.at(static_cast<std::size_t>(group_.rank())).count;
  XDIT_ASSERT(latent_rows > 0 && mine % latent_rows == 0);
  const std::int64_t scale = mine / latent_rows;
  std::vector<comm::Range> scaled = rows_;
  for (comm::Range& range : scaled) range = {range.first * scale, range.count * scale};
  return scaled;
}

at::Tensor SplitSpatial::gather(const at::Tensor& mine, bool to_all, comm::PeerBuffer& buffer) const {
  const at::Tensor rows = mine.contiguous();
  const auto bytes = static_cast<std::int64_t>(rows.nbytes());
  const std::vector<comm::Range> owned = ranges(rows.size(0));
  std::vector<comm::Range> wanted(owned.size());
  const std::int64_t all = all_rows_ * rows.size(0) / rows_[group_.rank()].count;
  for (std::size_t i = 0; i < owned.size(); ++i)
    if (to_all ? owned[i].count > 0 : i == 0) wanted[i] = {0, all};
  group_.gather_rows({.data = rows.const_data_ptr(), .row_bytes = bytes / rows.size(0)}, owned, wanted,
                     buffer, current_stream(rows.device()));
  if (wanted[group_.rank()].count == 0) return {};
  std::vector<std::int64_t> shape = rows.sizes().vec();
  shape[0] = all;
  return at::from_blob(buffer.data(), shape, rows.options());
}

at::Tensor SplitSpatial::gather_tokens(const at::Tensor& tokens) const {
  XDIT_ASSERT(tokens.size(0) == 1);
  return gather(tokens[0], /*to_all=*/true, tokens_).unsqueeze(0);
}

at::Tensor SplitSpatial::gather_moments(const at::Tensor& rows) const {
  XDIT_ASSERT(rows.size(0) == 1);
  return gather(rows[0], /*to_all=*/true, moments_).unsqueeze(0);
}

at::Tensor SplitSpatial::collect(const at::Tensor& rows) const {
  const at::Tensor all = gather(rows.permute({1, 2, 0}), /*to_all=*/false, picture_);  // [H, W, C]
  return all.defined() ? all.permute({2, 0, 1}) : all;
}

void SplitSpatial::fill_halo(const at::Tensor& padded, std::int64_t halo) const {
  const at::Tensor memory = padded.permute({0, 2, 3, 1})[0];  // [h + 2 halo, W, C]
  XDIT_ASSERT(halo <= kHalo && padded.size(0) == 1 && memory.is_contiguous());
  const std::int64_t own_rows = memory.size(0) - 2 * halo;
  const auto row_bytes = static_cast<std::int64_t>(memory.nbytes()) / memory.size(0);
  const std::vector<comm::Range> owned = ranges(own_rows);
  const comm::Range all{0, all_rows_ * own_rows / rows_[group_.rank()].count};
  std::vector<comm::Range> above(owned.size()), below(owned.size());
  for (std::size_t i = 0; i < owned.size(); ++i) {
    if (owned[i].count == 0) continue;
    above[i] = comm::overlap({owned[i].first - halo, halo}, all);
    below[i] = comm::overlap({owned[i].end(), halo}, all);
  }

  const int rank = group_.rank();
  const std::int64_t offset = halo * row_bytes;
  const comm::Slab slab{.data = memory[halo].const_data_ptr(), .row_bytes = row_bytes};
  std::vector<comm::Put> puts = comm::put_rows(slab, owned, above, rank);
  const std::vector<comm::Put> more = comm::put_rows(slab, owned, below, rank, offset);
  puts.insert(puts.end(), more.begin(), more.end());
  const auto from =
      both([&](const auto& wanted) { return comm::sources(owned, wanted, rank); }, above, below);
  const auto to = both([&](const auto& wanted) { return comm::targets(owned, wanted, rank); }, above, below);
  const comm::Stream stream = current_stream(padded.device());
  halos_.post(from, stream);
  halos_.put(puts, to, stream, "halo");
  halos_.arrive(from, stream, "halo");

  // Where the picture ends, zeros.
  const auto arrived = [&](std::int64_t rows, std::int64_t at) {
    return at::from_blob(halos_.data() + at, {rows, memory.size(1), memory.size(2)}, memory.options());
  };
  const std::int64_t rows_above = above[rank].count, rows_below = below[rank].count;
  memory.narrow(0, 0, halo - rows_above).zero_();
  memory.narrow(0, halo - rows_above, rows_above).copy_(arrived(rows_above, 0));
  memory.narrow(0, halo + own_rows, rows_below).copy_(arrived(rows_below, offset));
  memory.narrow(0, halo + own_rows + rows_below, halo - rows_below).zero_();
}

}  // namespace xdit::parallel
