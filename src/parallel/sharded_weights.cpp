#include "parallel/sharded_weights.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

namespace xdit::parallel {
ShardedWeights::ShardedWeights(comm::Group& group, const std::vector<HeldParameter>& held, Range blocks,
                               at::TensorOptions options)
    : group_(group),
      held_(held),
      blocks_(blocks),
      options_(options),
      units_(sharded_units(held, blocks)),
      offsets_([&] {
        std::vector<std::vector<std::int64_t>> offsets(static_cast<std::size_t>(group.size()));
        for (std::int64_t rank = 0; rank < group.size(); ++rank) {
          std::vector<std::int64_t>& mine = offsets[static_cast<std::size_t>(rank)];
          mine.push_back(0);
          for (std::size_t unit = 0; unit < units_.size(); ++unit)
            mine.push_back(mine.back() + share(unit, rank).count);
        }
        return offsets;
      }()),
      shares_(group.allocate(offsets_[static_cast<std::size_t>(group.rank())].back() *
                             static_cast<std::int64_t>(options.dtype().itemsize()))),
      ahead_(options.device()) {
  std::int64_t longest = 0;
  for (const Range& unit : units_) longest = std::max(longest, unit.count);
  for (at::Tensor& slot : slots_) slot = at::empty({longest}, options);
}

Range ShardedWeights::share(std::size_t unit, std::int64_t rank) const {
  return share_of(units_.at(unit), group_.size(), rank);
}

void ShardedWeights::add_to(WeightMemory& memory) const {
  const std::vector<std::int64_t>& mine = offsets_[static_cast<std::size_t>(group_.rank())];
  const auto element = static_cast<std::int64_t>(options_.dtype().itemsize());
  for (std::size_t unit = 0; unit < units_.size(); ++unit) {
    const Range range = share(unit, group_.rank());
    memory.add(range.first, at::from_blob(shares_.data() + mine[unit] * element, {range.count}, options_));
  }
}

void ShardedWeights::stored() {
  const comm::Stream stream = current_stream(options_.device());
  shares_.publish(stream);
  group_.barrier(stream);
}

const HeldParameter& ShardedWeights::named(const std::string& name) const {
  const auto found =
      std::find_if(held_.begin(), held_.end(), [&](const HeldParameter& held) { return held.name == name; });
  XDIT_ASSERT(found != held_.end());
  return *found;
}

at::Tensor ShardedWeights::get(const std::string& name) const {
  const auto outside = outside_.find(name);
  if (outside != outside_.end()) return outside->second;
  const HeldParameter& held = named(name);
  XDIT_ASSERT(held.block != weights::kNoBlock);
  const auto unit = static_cast<std::size_t>(held.block - blocks_.first);
  return slot_of(unit).narrow(0, held.offset - units_.at(unit).first, held.elements()).view(held.shape);
}

// A unit's slot is free: the one that it held before has been left.
void ShardedWeights::fetch(std::size_t unit) {
  const auto element = static_cast<std::int64_t>(options_.dtype().itemsize());
  const at::Tensor slot = slot_of(unit);
  ahead_.begin();
  for (std::int64_t step = 0; step < group_.size(); ++step) {
    const std::int64_t rank = (group_.rank() + step) % group_.size();  // not everybody from rank 0 first
    const Range part = share(unit, rank);
    const std::byte* const from =
        shares_.read(static_cast<int>(rank),
                     {offsets_[static_cast<std::size_t>(rank)][unit] * element, part.count * element});
    ahead_.copy(
        static_cast<std::byte*>(slot.mutable_data_ptr()) + (part.first - units_[unit].first) * element, from,
        part.count * element);
  }
  ahead_.end();
  fetched_ = unit;
}

void ShardedWeights::bring(std::size_t unit, std::size_t next) {
  if (fetched_ != unit) fetch(unit);
  ahead_.wait();
  if (next % slots_.size() != unit % slots_.size()) fetch(next);
}

void ShardedWeights::enter(std::int64_t block) {
  const std::int64_t next = block + 1 == blocks_.end() ? blocks_.first : block + 1;
  bring(static_cast<std::size_t>(block - blocks_.first), static_cast<std::size_t>(next - blocks_.first));
}

at::Tensor ShardedWeights::rows(const std::string& name, std::int64_t first, std::int64_t count) {
  const HeldParameter& held = named(name);
  const std::int64_t row = held.elements() / held.shape.front();
  const auto found = std::find(units_.begin(), units_.end(), Range{held.offset + first * row, count * row});
  XDIT_ASSERT(found != units_.end());
  const auto unit = static_cast<std::size_t>(found - units_.begin());
  bring(unit, std::min(unit + 1, units_.size() - 1));
  return slot_of(unit).narrow(0, 0, found->count).view({count, row});
}

}  // namespace xdit::parallel
