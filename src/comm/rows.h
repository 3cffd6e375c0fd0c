#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace xdit::comm {

/// A strided copy from this rank's memory into a peer's buffer. Strides and sizes in bytes.
struct Put {
  int peer = 0;  ///< rank in the group; may be this one
  const void* source = nullptr;
  std::int64_t rows = 0;
  std::int64_t row_bytes = 0;
  std::int64_t source_stride = 0;
  std::int64_t offset = 0;  ///< in the peer's buffer
  std::int64_t stride = 0;
};

/// Rows in a buffer, in bytes.
struct Extent {
  std::int64_t offset = 0;
  std::int64_t rows = 0;
  std::int64_t row_bytes = 0;
  std::int64_t stride = 0;
  bool operator==(const Extent&) const = default;
};
/// Where `puts` lie in `peer`'s buffer; those that follow each other without a gap are one.
[[nodiscard]] std::vector<Extent> extents_of(std::span<const Put> puts, int peer);

/// Global indices of rows or tokens; any Range may be empty.
struct Range {
  std::int64_t first = 0;
  std::int64_t count = 0;
  [[nodiscard]] std::int64_t end() const { return first + count; }
  bool operator==(const Range&) const = default;
};
[[nodiscard]] Range overlap(Range a, Range b);

/// The owned ranges, each with up to `above` rows before and `below` rows after it, cut to what is owned by
/// anyone. An empty range stays empty.
[[nodiscard]] std::vector<Range> with_halo(std::span<const Range> owned, std::int64_t above,
                                           std::int64_t below);

/// One rank's rows [planes, rows, row_bytes]: K and V of tokens are two planes, NCHW has N * C, NHWC has N.
struct Slab {
  const void* data = nullptr;
  std::int64_t planes = 1;
  std::int64_t plane_stride = 0;  ///< bytes
  std::int64_t row_bytes = 0;
};

/// What `rank`, holding the rows owned[rank], puts so that every rank p has the rows wanted[p], packed
/// [planes, wanted[p].count, row_bytes] from `offset` of its buffer. Whoever wants more rows than that owned
/// sees holes. Owned ranges do not overlap.
[[nodiscard]] std::vector<Put> put_rows(const Slab& slab, std::span<const Range> owned,
                                        std::span<const Range> wanted, int rank, std::int64_t offset = 0);

/// Ranks whose rows `rank` wants (they put to it), and ranks that want its rows (it puts to them).
[[nodiscard]] std::vector<int> sources(std::span<const Range> owned, std::span<const Range> wanted, int rank);
[[nodiscard]] std::vector<int> targets(std::span<const Range> owned, std::span<const Range> wanted, int rank);

}  // namespace xdit::comm
