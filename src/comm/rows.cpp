#include "comm/rows.h"

#include <algorithm>
#include <cstddef>

namespace xdit::comm {

Range overlap(Range a, Range b) {
  const std::int64_t first = std::max(a.first, b.first);
  return {first, std::max<std::int64_t>(0, std::min(a.end(), b.end()) - first)};
}

std::vector<Range> with_halo(std::span<const Range> owned, std::int64_t above, std::int64_t below) {
  std::vector<Range> result(owned.begin(), owned.end());
  std::erase_if(result, [](Range range) { return range.count == 0; });
  if (result.empty()) return {owned.begin(), owned.end()};
  const std::int64_t begin = std::ranges::min_element(result, {}, &Range::first)->first;
  const std::int64_t end = std::ranges::max_element(result, {}, &Range::end)->end();
  result.assign(owned.begin(), owned.end());
  for (Range& range : result) {
    if (range.count == 0) continue;
    const Range wide{range.first - above, range.count + above + below};
    range = overlap(wide, {begin, end - begin});
  }
  return result;
}

std::vector<Put> put_rows(const Slab& slab, std::span<const Range> owned, std::span<const Range> wanted,
                          int rank, std::int64_t offset) {
  const auto size = static_cast<int>(owned.size());
  const Range mine = owned[rank];
  std::vector<Put> puts;
  for (int step = 1; step <= size; ++step) {
    const int peer = (rank + step) % size;  // not everybody to rank 0 first
    const Range theirs = wanted[peer];
    const Range rows = overlap(mine, theirs);
    if (rows.count == 0) continue;
    puts.push_back(
        {.peer = peer,
         .source = static_cast<const std::byte*>(slab.data) + (rows.first - mine.first) * slab.row_bytes,
         .rows = slab.planes,
         .row_bytes = rows.count * slab.row_bytes,
         .source_stride = slab.plane_stride,
         .offset = offset + (rows.first - theirs.first) * slab.row_bytes,
         .stride = theirs.count * slab.row_bytes});
  }
  return puts;
}

std::vector<Extent> extents_of(std::span<const Put> puts, int peer) {
  std::vector<Extent> extents;
  for (const Put& put : puts) {
    if (put.peer != peer || put.rows == 0 || put.row_bytes == 0) continue;
    Extent next{put.offset, put.rows, put.row_bytes, put.stride};
    if (put.rows == 1 || put.stride == put.row_bytes) next = {put.offset, 1, put.rows * put.row_bytes, 0};
    if (!extents.empty()) {
      Extent& last = extents.back();
      if (last.rows == 1 && next.rows == 1 && last.offset + last.row_bytes == next.offset) {
        last.row_bytes += next.row_bytes;
        continue;
      }
    }
    extents.push_back(next);
  }
  return extents;
}

std::vector<int> sources(std::span<const Range> owned, std::span<const Range> wanted, int rank) {
  std::vector<int> result;
  for (std::size_t peer = 0; peer < owned.size(); ++peer) {
    if (overlap(owned[peer], wanted[rank]).count > 0) result.push_back(static_cast<int>(peer));
  }
  return result;
}

std::vector<int> targets(std::span<const Range> owned, std::span<const Range> wanted, int rank) {
  return sources(wanted, owned, rank);
}

}  // namespace xdit::comm
