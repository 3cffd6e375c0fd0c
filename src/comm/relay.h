#pragma once
#include <cstddef>
#include <cstdint>

#include "comm/rows.h"

/// Memory relays where its owners do not want to work in what their peers reach (a GPU, in the host's
/// memory): a sender says beside its rows where they lie, and the receiver copies those, once, to its own
/// copy.
namespace xdit::comm {

/// An extent of what a sender puts. It has a list of kAhead x kMost extents in each receiver's block: kMost
/// for one transfer, ended by one without rows, and a place for each transfer that may be under way.
struct Label {
  static constexpr std::int64_t kMost = 32;
  static constexpr std::int64_t kAhead = 32;
  Extent* list;
  const std::uint64_t* count;  ///< transfers of this pair before this one
  std::int64_t index;          ///< of the extent in its transfer
  Extent extent;
};

/// What one sender's last transfer left in a rank's block, and the rank's own copy of it.
struct Landing {
  const Extent* list;
  const std::uint64_t* count;  ///< transfers of this pair, with this one
  const std::byte* from;       ///< parts of `bytes`
  std::byte* to;
  std::int64_t bytes;
};

}  // namespace xdit::comm
