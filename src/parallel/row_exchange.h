#pragma once
#include <cstddef>
#include <vector>

#include "comm/group.h"
#include "parallel/plan_rows.h"

namespace xdit::parallel {

/// Rows on their way: what this rank puts into the others' buffers, whose rows it gets, and who gets its own.
struct RowTransfer {
  RowKind kind;
  std::vector<comm::Put> puts;
  comm::Peers from;
  comm::Peers to;
};

/// How rows of a picture reach the ranks that need them. All ranks make the same exchanges in one order.
class RowExchange {
 public:
  RowExchange() = default;
  RowExchange(const RowExchange&) = delete;
  RowExchange& operator=(const RowExchange&) = delete;
  virtual ~RowExchange() = default;
  /// What has come, each put at its offset. Good until the next exchange.
  struct Arrived {
    std::byte* data = nullptr;
    bool kept = false;   ///< needed again: not to be overwritten
    bool stale = false;  ///< what was put in the forward before, by this rank as well
  };
  [[nodiscard]] virtual Arrived exchange(const RowTransfer& transfer, comm::Stream stream) = 0;
};

/// The exchange's name in errors.
[[nodiscard]] const char* name_of(RowKind kind);

/// Rows of this forward (exact): everybody waits for them.
class FreshRows final : public RowExchange {
 public:
  /// Collective. A rank that takes no part gets the whole picture at most.
  FreshRows(comm::Group& group, bool takes_part, const SlabBytes& bytes);
  [[nodiscard]] Arrived exchange(const RowTransfer& transfer, comm::Stream stream) override;

 private:
  std::vector<comm::PeerBuffer> buffers_;  ///< by kind
};

}  // namespace xdit::parallel
