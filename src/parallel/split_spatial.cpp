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

SlabBytes slab_bytes(const models::UnetConfig& config, std::int64_t rows, std::int64_t columns,
                     std::int64_t element_bytes) {
  const std::int64_t float_bytes = static_cast<std::int64_t>(sizeof(float));
  SlabBytes bytes{.row = config.in_channels * columns * element_bytes,
                  .moments = rows * config.groups * 2 * float_bytes,
                  .tokens = 0,
                  .picture = 0};
  const models::UnetLayout layout = models::unet_layout(config);
  std::vector<std::pair<std::int64_t, std::int64_t>> sizes{{rows, columns}};  // by level
  std::size_t level = 0;
  const auto add = [&](const models::UnetLayer& layer) {
    const auto [height, width] = sizes.at(level);
    bytes.row = std::max(bytes.row, std::max(layer.inputs, layer.outputs) * width * element_bytes);
    if (layer.depth > 0)
      bytes.tokens = std::max(bytes.tokens, height * width * 2 * layer.outputs * element_bytes);
  };
  for (const models::UnetLayer& layer : layout.down) {
    add(layer);
    if (layer.resample.empty()) continue;
    sizes.emplace_back((sizes[level].first + 1) / 2, (sizes[level].second + 1) / 2);
    ++level;
  }
  for (const models::UnetLayer& layer : layout.middle) add(layer);
  for (const models::UnetLayer& layer : layout.up) {
    add(layer);
    if (!layer.resample.empty()) --level;
  }
  return bytes;
}

SplitSpatial::Shared::Shared(comm::Group& of, const std::vector<comm::Range>& rows, const SlabBytes& bytes)
    : group(of),
      halos(of.allocate(rows.at(of.rank()).count > 0 ? 2 * kHalo * bytes.row : 0)),
      moments(of.allocate(rows.at(of.rank()).count > 0 ? bytes.moments : 0)),
      tokens(of.allocate(rows.at(of.rank()).count > 0 ? bytes.tokens : 0)),
      picture(of.allocate(of.rank() == 0 ? bytes.picture : 0)) {
  for (const comm::Range& range : rows) takes_part.push_back(range.count > 0);
}

SplitSpatial::SplitSpatial(comm::Group& group, const std::vector<comm::Range>& rows, const SlabBytes& bytes)
    : SplitSpatial(std::make_shared<Shared>(group, rows, bytes), rows) {}

SplitSpatial::SplitSpatial(std::shared_ptr<Shared> shared, std::vector<comm::Range> rows)
    : shared_(std::move(shared)), rows_(std::move(rows)) {
  XDIT_ASSERT(static_cast<int>(rows_.size()) == shared_->group.size());
  for (const comm::Range& range : rows_) all_rows_ += range.count;
  if (all_rows_ <= 1) return;
  std::vector<comm::Range> half = rows_;
  for (comm::Range& range : half) {
    const std::int64_t first = (range.first + 1) / 2;
    range = {first, (range.end() + 1) / 2 - first};
  }
  halved_.reset(new SplitSpatial(shared_, std::move(half)));
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

at::Tensor SplitSpatial::gather(const at::Tensor& mine, bool to_all, comm::PeerBuffer& buffer) const {
  const at::Tensor rows = mine.contiguous();
  std::vector<std::int64_t> shape = rows.sizes().vec();
  const std::int64_t times = scale(shape[0]);
  const std::vector<comm::Range> owned = ranges(times);
  std::vector<comm::Range> wanted(owned.size());
  shape[0] = times * all_rows_;
  for (std::size_t i = 0; i < owned.size(); ++i)
    if (to_all ? shared_->takes_part[i] : i == 0) wanted[i] = {0, shape[0]};
  const std::int64_t row_bytes =
      c10::multiply_integers(shape.begin() + 1, shape.end()) * static_cast<std::int64_t>(rows.element_size());
  shared_->group.gather_rows({.data = rows.const_data_ptr(), .row_bytes = row_bytes}, owned, wanted, buffer,
                             current_stream(rows.device()));
  if (wanted[shared_->group.rank()].count == 0) return {};
  return at::from_blob(buffer.data(), shape, rows.options());
}

at::Tensor SplitSpatial::gather_tokens(const at::Tensor& rows) const {
  XDIT_ASSERT(rows.size(0) == 1);
  return gather(rows[0], /*to_all=*/true, shared_->tokens).flatten(0, 1).unsqueeze(0);
}

at::Tensor SplitSpatial::gather_moments(const at::Tensor& rows) const {
  XDIT_ASSERT(rows.size(0) == 1);
  return gather(rows[0], /*to_all=*/true, shared_->moments).unsqueeze(0);
}

at::Tensor SplitSpatial::collect(const at::Tensor& rows) const {
  const at::Tensor all = gather(rows.permute({1, 2, 0}), /*to_all=*/false, shared_->picture);  // [H, W, C]
  return all.defined() ? all.permute({2, 0, 1}) : all;
}

void SplitSpatial::fill_halo(const at::Tensor& padded, std::int64_t halo) const {
  const at::Tensor memory = padded.permute({0, 2, 3, 1})[0];  // [h + 2 halo, W, C]
  XDIT_ASSERT(halo <= kHalo && padded.size(0) == 1 && memory.is_contiguous());
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

  const int rank = shared_->group.rank();
  const std::int64_t offset = halo * row_bytes;
  const comm::Slab slab{.data = memory.narrow(0, halo, own_rows).const_data_ptr(), .row_bytes = row_bytes};
  std::vector<comm::Put> puts = comm::put_rows(slab, owned, above, rank);
  const std::vector<comm::Put> more = comm::put_rows(slab, owned, below, rank, offset);
  puts.insert(puts.end(), more.begin(), more.end());
  const auto from =
      both([&](const auto& wanted) { return comm::sources(owned, wanted, rank); }, above, below);
  const auto to = both([&](const auto& wanted) { return comm::targets(owned, wanted, rank); }, above, below);
  const comm::Stream stream = current_stream(padded.device());
  shared_->halos.post(from, stream);
  shared_->halos.put(puts, to, stream, "halo");
  shared_->halos.arrive(from, stream, "halo");

  // Where the picture ends, zeros.
  const auto arrived = [&](std::int64_t rows, std::int64_t at) {
    return at::from_blob(shared_->halos.data() + at, {rows, memory.size(1), memory.size(2)},
                         memory.options());
  };
  const std::int64_t rows_above = above[rank].count, rows_below = below[rank].count;
  memory.narrow(0, 0, halo - rows_above).zero_();
  memory.narrow(0, halo - rows_above, rows_above).copy_(arrived(rows_above, 0));
  memory.narrow(0, halo + own_rows, rows_below).copy_(arrived(rows_below, offset));
  memory.narrow(0, halo + own_rows + rows_below, halo - rows_below).zero_();
}

}  // namespace xdit::parallel
