#include "parallel/plan_parameters.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/error.h"

namespace xdit::parallel {
namespace {

using weights::Cut;

constexpr std::int64_t kAlignment = 128;  // elements: 256 bytes of the smallest dtype

std::int64_t product(const std::vector<std::int64_t>& shape, std::size_t from = 0) {
  return std::accumulate(shape.begin() + static_cast<std::ptrdiff_t>(from), shape.end(), std::int64_t{1},
                         std::multiplies<>());
}

// The share of each part's outputs; `blocks` drops the parts of other blocks.
void hold_outputs(const weights::Parameter& parameter, Range blocks, std::int64_t tensor,
                  std::int64_t tensor_rank, HeldParameter& held) {
  const std::int64_t row = product(parameter.shape, 1);
  std::int64_t source = 0;
  std::int64_t rows = 0;
  for (const weights::Wanted& part : parameter.parts) {
    const bool here = part.block == weights::kNoBlock || comm::overlap(blocks, {part.block, 1}).count == 1;
    const std::int64_t all = part.shape.empty() ? 1 : part.shape.front();
    if (here) {
      XDIT_ASSERT(all % tensor == 0);
      const std::int64_t share = all / tensor;
      held.rectangles.push_back({.source = (source + tensor_rank * share) * row,
                                 .source_stride = 0,
                                 .to = rows * row,
                                 .to_stride = 0,
                                 .rows = 1,
                                 .count = share * row});
      rows += share;
    }
    source += all;
  }
  if (!held.shape.empty()) held.shape.front() = rows;
}

void hold_inputs(const weights::Parameter& parameter, std::int64_t tensor, std::int64_t tensor_rank,
                 HeldParameter& held) {
  const std::int64_t width = parameter.shape.at(1) / tensor;
  std::int64_t source = 0;
  std::int64_t to = 0;
  for (const std::int64_t inputs : parameter.inputs) {
    XDIT_ASSERT(inputs % tensor == 0);
    const std::int64_t share = inputs / tensor;
    held.rectangles.push_back({.source = source + tensor_rank * share,
                               .source_stride = parameter.shape[1],
                               .to = to,
                               .to_stride = width,
                               .rows = parameter.shape[0],
                               .count = share});
    source += inputs;
    to += share;
  }
  held.shape[1] = width;
}

}  // namespace

std::int64_t HeldParameter::elements() const {
  return product(shape);
}

std::vector<HeldParameter> held_parameters(const models::Network& network, Range blocks, std::int64_t tensor,
                                           std::int64_t tensor_rank) {
  std::vector<HeldParameter> all;
  std::int64_t offset = 0;
  for (const weights::Parameter& parameter : network.parameters) {
    HeldParameter held{.name = parameter.name, .shape = parameter.shape, .rectangles = {}};
    held.block = parameter.block();
    held.is_cut_matrix = parameter.is_cut_matrix();
    held.piece_rows = parameter.piece_rows;
    if (held.block != weights::kNoBlock && comm::overlap(blocks, {held.block, 1}).count == 0) continue;
    if (parameter.cut == Cut::kInputs && tensor > 1)
      hold_inputs(parameter, tensor, tensor_rank, held);
    else
      hold_outputs(parameter, blocks, parameter.cut == Cut::kOutputs ? tensor : 1,
                   parameter.cut == Cut::kOutputs ? tensor_rank : 0, held);
    held.offset = offset;
    offset += (held.elements() + kAlignment - 1) / kAlignment * kAlignment;
    all.push_back(std::move(held));
  }
  return all;
}

std::int64_t memory_elements(const std::vector<HeldParameter>& held) {
  return held.empty()
             ? 0
             : held.back().offset + (held.back().elements() + kAlignment - 1) / kAlignment * kAlignment;
}

Range block_memory(const std::vector<HeldParameter>& held, std::int64_t block) {
  const auto is_of = [&](const HeldParameter& one) { return one.block == block; };
  const auto first = std::find_if(held.begin(), held.end(), is_of);
  const auto end = std::find_if_not(first, held.end(), is_of);
  XDIT_ASSERT(first != held.end() && std::none_of(end, held.end(), is_of));
  const std::int64_t last = end == held.end() ? memory_elements(held) : end->offset;
  return {first->offset, last - first->offset};
}

Range part_of(std::int64_t count, std::int64_t parts, std::int64_t index) {
  const std::int64_t more = count % parts;
  return {count / parts * index + std::min(index, more), count / parts + (index < more ? 1 : 0)};
}

std::vector<weights::Piece> pieces_of(const HeldParameter& held, const weights::Placed& placed, Range part) {
  std::vector<weights::Piece> pieces;
  for (const Rectangle& rectangle : held.rectangles)
    for (std::int64_t row = 0; row < rectangle.rows; ++row) {
      const std::int64_t to = rectangle.to + row * rectangle.to_stride;
      const Range wanted = comm::overlap({to, rectangle.count}, part);
      if (wanted.count == 0) continue;
      const std::int64_t source = rectangle.source + row * rectangle.source_stride + wanted.first - to;
      for (const weights::Piece& piece : placed.pieces) {
        const Range there = comm::overlap({source, wanted.count}, {piece.first_element, piece.elements});
        if (there.count == 0) continue;
        const auto size = static_cast<std::uint64_t>(size_of(piece.dtype));
        pieces.push_back(
            {.file = piece.file,
             .offset = piece.offset + static_cast<std::uint64_t>(there.first - piece.first_element) * size,
             .bytes = static_cast<std::uint64_t>(there.count) * size,
             .dtype = piece.dtype,
             .first_element = wanted.first + there.first - source,
             .elements = there.count});
      }
    }
  return pieces;
}

std::vector<Range> sharded_units(const std::vector<HeldParameter>& held, Range blocks) {
  std::vector<Range> units;
  for (std::int64_t block = blocks.first; block < blocks.end(); ++block)
    units.push_back(block_memory(held, block));
  for (const HeldParameter& one : held) {
    if (one.piece_rows == 0) continue;
    const std::int64_t piece = one.piece_rows * product(one.shape, 1);
    for (std::int64_t first = 0; first < one.elements(); first += piece)
      units.push_back({one.offset + first, std::min(piece, one.elements() - first)});
  }
  return units;
}

Range share_of(Range unit, std::int64_t ranks, std::int64_t index) {
  const Range part = part_of(unit.count, ranks, index);
  return {unit.first + part.first, part.count};
}

std::int64_t elements_of(const std::vector<Range>& ranges) {
  std::int64_t sum = 0;
  for (const Range& range : ranges) sum += range.count;
  return sum;
}

std::vector<Range> section(const std::vector<Range>& ranges, Range part) {
  std::vector<Range> result;
  std::int64_t before = 0;
  for (const Range& range : ranges) {
    const Range inside = comm::overlap({before, range.count}, part);
    if (inside.count > 0) result.push_back({range.first + inside.first - before, inside.count});
    before += range.count;
  }
  return result;
}

std::vector<Range> shared_out(const std::vector<Range>& ranges, const std::vector<std::int64_t>& shares,
                              std::size_t index) {
  const std::int64_t all = elements_of(ranges);
  const auto until = [&](std::size_t ranks) {  // elements of the first `ranks` of them
    const auto sum = [&](std::size_t n) {
      return std::accumulate(shares.begin(), shares.begin() + static_cast<std::ptrdiff_t>(n), 0.0L);
    };
    return static_cast<std::int64_t>(static_cast<long double>(all) * sum(ranks) / sum(shares.size()));
  };
  const std::int64_t begin = until(index);
  return section(ranges, {begin, (index + 1 == shares.size() ? all : until(index + 1)) - begin});
}

}  // namespace xdit::parallel
