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
      offsets_([&] {
        std::vector<std::vector<std::int64_t>> offsets(static_cast<std::size_t>(group.size()));
        for (std::int64_t rank = 0; rank < group.size(); ++rank) {
          std::vector<std::int64_t>& mine = offsets[static_cast<std::size_t>(rank)];
          mine.push_back(0);
          for (std::int64_t block = blocks.first; block < blocks.end(); ++block)
            mine.push_back(mine.back() + share(block, rank).count);
        }
        return offsets;
      }()),
      shares_(group.allocate(offsets_[static_cast<std::size_t>(group.rank())].back() *
                             static_cast<std::int64_t>(options.dtype().itemsize()))),
      ahead_(options.device()) {
  std::int64_t longest = 0;
  for (std::int64_t block = blocks.first; block < blocks.end(); ++block)
    longest = std::max(longest, block_memory(held, block).count);
  for (at::Tensor& slot : slots_) slot = at::empty({longest}, options);
}

Range ShardedWeights::share(std::int64_t block, std::int64_t rank) const {
  return block_share(held_, block, group_.size(), rank);
}

void ShardedWeights::add_to(WeightMemory& memory) const {
  const std::vector<std::int64_t>& mine = offsets_[static_cast<std::size_t>(group_.rank())];
  const auto element = static_cast<std::int64_t>(options_.dtype().itemsize());
  for (std::int64_t i = 0; i < blocks_.count; ++i) {
    const Range range = share(blocks_.first + i, group_.rank());
    memory.add(range.first, at::from_blob(shares_.data() + mine[static_cast<std::size_t>(i)] * element,
                                          {range.count}, options_));
  }
}

void ShardedWeights::stored() {
  const comm::Stream stream = current_stream(options_.device());
  shares_.publish(stream);
  group_.barrier(stream);
}

at::Tensor ShardedWeights::get(const std::string& name) const {
  const auto outside = outside_.find(name);
  if (outside != outside_.end()) return outside->second;
  const auto found =
      std::find_if(held_.begin(), held_.end(), [&](const HeldParameter& held) { return held.name == name; });
  XDIT_ASSERT(found != held_.end() && found->block != weights::kNoBlock);
  const at::Tensor& slot = slots_[static_cast<std::size_t>((found->block - blocks_.first) % 2)];
  return slot.narrow(0, found->offset - block_memory(held_, found->block).first, found->elements())
      .view(found->shape);
}

// A block's slot is free: the block that it held before has been left.
void ShardedWeights::fetch(std::int64_t block) {
  const std::int64_t index = block - blocks_.first;
  const auto element = static_cast<std::int64_t>(options_.dtype().itemsize());
  const at::Tensor& slot = slots_[static_cast<std::size_t>(index % 2)];
  const Range all = block_memory(held_, block);
  ahead_.begin();
  for (std::int64_t step = 0; step < group_.size(); ++step) {
    const std::int64_t rank = (group_.rank() + step) % group_.size();  // not everybody from rank 0 first
    const Range part = share(block, rank);
    const std::byte* const from =
        shares_.read(static_cast<int>(rank),
                     {offsets_[static_cast<std::size_t>(rank)][static_cast<std::size_t>(index)] * element,
                      part.count * element});
    ahead_.copy(static_cast<std::byte*>(slot.mutable_data_ptr()) + (part.first - all.first) * element, from,
                part.count * element);
  }
  ahead_.end();
  fetched_ = block;
}

void ShardedWeights::enter(std::int64_t block) {
  if (fetched_ != block) fetch(block);
  ahead_.wait();
  const std::int64_t next = block + 1 == blocks_.end() ? blocks_.first : block + 1;
  if ((next - block) % 2 != 0) fetch(next);  // else it waits for this block's slot
}

}  // namespace xdit::parallel
