#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comm/group.h"
#include "nn/weights.h"
#include "parallel/device_stream.h"
#include "parallel/load.h"

namespace xdit::parallel {

/// Each rank stores a share of every block, and of every piece of what is used in pieces, and reads the
/// others' shares from its peers when the block comes (exact; as ZeRO-3, Rajbhandari et al. 2020), one block
/// ahead of the computation. Reads are one-sided: a rank may be anywhere in its own work, with other prompts
/// or none, but none may end before all have (Group::barrier).
class ShardedWeights final : public nn::Weights {
 public:
  /// `blocks`: those of `held` that this rank runs, in a circle. Collective; then `memory` is filled, and
  /// `stored` is called.
  ShardedWeights(comm::Group& group, const std::vector<HeldParameter>& held, Range blocks,
                 at::TensorOptions options);

  /// This rank's shares, to be filled.
  void add_to(WeightMemory& memory) const;
  /// What is not shared out.
  void set_outside(Tensors tensors) { outside_ = std::move(tensors); }
  void stored();  ///< all shares are in place. Collective

  [[nodiscard]] at::Tensor get(const std::string& name) const override;
  [[nodiscard]] bool stays(const std::string& name) const override { return outside_.contains(name); }
  [[nodiscard]] at::Tensor rows(const std::string& name, std::int64_t first, std::int64_t count) override;
  void enter(std::int64_t block) override;
  void leave(std::int64_t /*block*/) override {}
  /// But for shares, which other ranks may yet read.
  void release(const std::string& name) override { outside_.erase(name); }

 private:
  [[nodiscard]] Range share(std::size_t unit, std::int64_t rank) const;  ///< in the network's memory
  [[nodiscard]] const HeldParameter& named(const std::string& name) const;
  [[nodiscard]] at::Tensor slot_of(std::size_t unit) const { return slots_.at(unit % slots_.size()); }
  void fetch(std::size_t unit);
  /// Waits for it and fetches `next`, if that has the other slot.
  void bring(std::size_t unit, std::size_t next);

  comm::Group& group_;
  std::vector<HeldParameter> held_;
  Range blocks_;
  at::TensorOptions options_;
  std::vector<Range> units_;                        ///< sharded_units
  std::vector<std::vector<std::int64_t>> offsets_;  ///< of rank r's share of the i-th unit in its buffer
  comm::PeerBuffer shares_;
  std::array<at::Tensor, 2> slots_;  ///< a unit, and the one before or after it
  Tensors outside_;
  std::optional<std::size_t> fetched_;  ///< the unit ahead
  SideStream ahead_;
};

}  // namespace xdit::parallel
