#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "comm/group.h"
#include "nn/weights.h"
#include "parallel/device_stream.h"
#include "parallel/load.h"

namespace xdit::parallel {

/// Each rank stores a share of every block and reads the others' shares from its peers when the block comes
/// (exact; as ZeRO-3, Rajbhandari et al. 2020), one block ahead of the computation. Reads are one-sided: a
/// rank may be anywhere in its own work, but none may end before all have (Group::barrier).
class ShardedWeights final : public nn::Weights {
 public:
  /// `blocks`: those of `held` that this rank runs, in a circle. Collective; then `memory` is filled, and
  /// `stored` is called.
  ShardedWeights(comm::Group& group, const std::vector<HeldParameter>& held, Range blocks,
                 at::TensorOptions options);

  /// This rank's shares of the blocks, to be filled.
  void add_to(WeightMemory& memory) const;
  /// What belongs to no block.
  void set_outside(Tensors tensors) { outside_ = std::move(tensors); }
  void stored();  ///< all shares are in place. Collective

  [[nodiscard]] at::Tensor get(const std::string& name) const override;
  [[nodiscard]] bool stays(const std::string& name) const override { return outside_.contains(name); }
  void enter(std::int64_t block) override;
  void leave(std::int64_t /*block*/) override {}
  void release(const std::string& name) override { outside_.erase(name); }

 private:
  [[nodiscard]] Range share(std::int64_t block, std::int64_t rank) const;  ///< in the network's memory
  void fetch(std::int64_t block);

  comm::Group& group_;
  std::vector<HeldParameter> held_;
  Range blocks_;
  at::TensorOptions options_;
  std::vector<std::vector<std::int64_t>> offsets_;  ///< of rank r's share of the i-th block in its buffer
  comm::PeerBuffer shares_;
  std::array<at::Tensor, 2> slots_;  ///< a block, and the one before or after it
  Tensors outside_;
  std::int64_t fetched_ = -1;  ///< the block ahead
  SideStream ahead_;
};

}  // namespace xdit::parallel
