#include "nn/product_tiles.h"

#include <algorithm>

namespace xdit::nn {
namespace {

constexpr std::int64_t kShortSum = 1280;  // inputs
// Sides of tiles that keep a multiprocessor's tensor cores busy; less will do where the first guess computes
// many results that are not there.
constexpr std::int64_t kLongSide = 128, kShortSide = 96, kShortestSide = 80;
constexpr double kWell = 0.97;  // of a tile's results are there

std::int64_t quotient_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
std::int64_t count(const ProductTile& tile, const ProductShape& shape) {
  return quotient_up(shape.rows, tile.rows) * quotient_up(shape.outputs, tile.outputs);
}
std::int64_t area(const ProductTile& tile) {
  return tile.rows * tile.outputs;
}

}  // namespace

bool sums_are_short(std::int64_t inputs) {
  return inputs <= kShortSum;
}

std::size_t best_tile(std::span<const ProductTile> tiles, const ProductShape& shape,
                      std::int64_t multiprocessors) {
  if (tiles.empty() || !tiles[0].cooperative || !sums_are_short(shape.inputs)) return 0;
  // What the multiprocessor with most tiles computes.
  const auto work = [&](const ProductTile& tile) {
    return quotient_up(count(tile, shape), multiprocessors) * area(tile);
  };
  const double there = static_cast<double>(shape.rows * shape.outputs) /
                       static_cast<double>(count(tiles[0], shape) * area(tiles[0]));
  const std::int64_t least = there < kWell ? kShortestSide : kShortSide;
  std::size_t best = 0;
  for (std::size_t i = 1; i < tiles.size(); ++i) {
    const auto [shorter, longer] = std::minmax(tiles[i].rows, tiles[i].outputs);
    if (tiles[i].cooperative || shorter < least || longer < kLongSide) continue;
    const std::int64_t most = work(tiles[best]);
    if (best == 0 ? work(tiles[i]) <= most : work(tiles[i]) < most) best = i;
  }
  return best;
}

}  // namespace xdit::nn
