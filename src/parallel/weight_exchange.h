#pragma once
#include <cstdint>
#include <vector>

#include "comm/group.h"
#include "parallel/load.h"

namespace xdit::parallel {

/// Spreads parameters that several ranks of a machine hold: each reads a share of them, and gets the others'.
class WeightExchange {
 public:
  /// `group`: ranks that hold the same memory. Collective. They are sent in turns of at most `turn_bytes`.
  WeightExchange(comm::Group& group, std::int64_t turn_bytes);
  /// Rank i has filled `shares[i]` of the network's memory; afterwards every rank has all of them.
  /// Collective.
  void exchange(const std::vector<std::vector<Range>>& shares, const WeightMemory& memory,
                const at::TensorOptions& options);

 private:
  comm::Group& group_;
  std::int64_t turn_bytes_;
  comm::PeerBuffer staging_;  ///< [ranks, turn_bytes]
};

}  // namespace xdit::parallel
