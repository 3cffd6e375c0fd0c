#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/registry.h"
#include "parallel/plan.h"

/// What a rank holds of a network's parameters, and which bytes of which file they are.
namespace xdit::parallel {

/// `rows` rows of `count` elements: of a flattened parameter from `source` on, and where they go.
struct Rectangle {
  std::int64_t source = 0;
  std::int64_t source_stride = 0;
  std::int64_t to = 0;
  std::int64_t to_stride = 0;
  std::int64_t rows = 1;
  std::int64_t count = 0;
};

/// A rank's part of one parameter, contiguous in the network's memory.
struct HeldParameter {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<Rectangle> rectangles;  ///< `to` counts from the part's own first element
  std::int64_t block = weights::kNoBlock;
  bool is_cut_matrix = false;   ///< as the parameter
  std::int64_t piece_rows = 0;  ///< likewise
  std::int64_t offset = 0;      ///< in the network's memory, in elements
  [[nodiscard]] std::int64_t elements() const;
  /// Whether ranks that shard weights share it out: it is of a block, or used in pieces.
  [[nodiscard]] bool is_sharded() const { return block != weights::kNoBlock || piece_rows > 0; }
};

inline constexpr Range kAllBlocks{0, std::int64_t{1} << 40U};

/// What a rank holds of `network` when it has blocks `blocks` and part `tensor_rank` of `tensor` of each, in
/// the order of memory: every parameter starts at a multiple of 128 elements.
[[nodiscard]] std::vector<HeldParameter> held_parameters(const models::Network& network, Range blocks,
                                                         std::int64_t tensor, std::int64_t tensor_rank);
/// Elements of the memory of all of them, and of one block.
[[nodiscard]] std::int64_t memory_elements(const std::vector<HeldParameter>& held);
[[nodiscard]] Range block_memory(const std::vector<HeldParameter>& held, std::int64_t block);

/// The memory that ranks which shard weights share out, one unit after the other: each of `blocks`, then
/// every piece of what is used in pieces.
[[nodiscard]] std::vector<Range> sharded_units(const std::vector<HeldParameter>& held, Range blocks);
/// The share of a unit that rank `index` of `ranks` stores.
[[nodiscard]] Range share_of(Range unit, std::int64_t ranks, std::int64_t index);

/// Elements of all ranges together, and those of `part` of them, counted from the first range's first on.
[[nodiscard]] std::int64_t elements_of(const std::vector<Range>& ranges);
[[nodiscard]] std::vector<Range> section(const std::vector<Range>& ranges, Range part);

/// Part `index` of `count` things cut in `parts`: the first ones take one more.
[[nodiscard]] Range part_of(std::int64_t count, std::int64_t parts, std::int64_t index);

/// The pieces of files for elements `part` of a held parameter. first_element counts from the parameter's
/// own first.
[[nodiscard]] std::vector<weights::Piece> pieces_of(const HeldParameter& held, const weights::Placed& placed,
                                                    Range part);

/// What rank `index` of those that hold the same `ranges` of memory reads: its share of their elements when
/// they are cut in proportion to `shares`.
[[nodiscard]] std::vector<Range> shared_out(const std::vector<Range>& ranges,
                                            const std::vector<std::int64_t>& shares, std::size_t index);

}  // namespace xdit::parallel
