#include "nn/product_tiles.h"

#include <algorithm>

namespace xdit::nn {
namespace {

constexpr std::int64_t kShortSum = 1280;  // inputs
// Sides of tiles that keep a multiprocessor's tensor cores busy; less will do where the first guess computes
// many results that are not there.
constexpr std::int64_t kLongSide = 128, kShortSide = 96, kShortestSide = 80;
constexpr double kWell = 0.97;  // of a tile's results are there
// Large tiles, which fetch each factor least often; longer ones are slower.
constexpr std::int64_t kLargeTile = std::int64_t{128} * 256, kLongestSide = 256;
// What a square tile's results cost more at the limit of energy.
constexpr double kSquare = 1.045;

std::int64_t quotient_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
std::int64_t count(const ProductTile& tile, const ProductShape& shape) {
  return quotient_up(shape.rows, tile.rows) * quotient_up(shape.outputs, tile.outputs);
}
std::int64_t area(const ProductTile& tile) {
  return tile.rows * tile.outputs;
}

// What the multiprocessor with most tiles computes.
std::int64_t most_work(const ProductTile& tile, const ProductShape& shape, std::int64_t multiprocessors) {
  return quotient_up(count(tile, shape), multiprocessors) * area(tile);
}

}  // namespace

std::size_t best_tile(std::span<const ProductTile> tiles, const ProductShape& shape,
                      std::int64_t multiprocessors) {
  if (tiles.empty() || !tiles[0].cooperative) return 0;
  const auto work = [&](std::size_t i) { return most_work(tiles[i], shape, multiprocessors); };
  std::size_t best = 0;
  if (shape.inputs > kShortSum) {
    const auto is_large = [](const ProductTile& tile) {
      return tile.cooperative && area(tile) >= kLargeTile &&
             std::max(tile.rows, tile.outputs) <= kLongestSide;
    };
    const auto cost = [&](std::size_t i) {
      const bool square = tiles[i].rows == tiles[i].outputs;
      return static_cast<double>(work(i)) * (square ? kSquare : 1);
    };
    if (!is_large(tiles[0])) return 0;
    for (std::size_t i = 1; i < tiles.size(); ++i)
      if (is_large(tiles[i]) && cost(i) < cost(best)) best = i;
    return best;
  }
  const double there = static_cast<double>(shape.rows * shape.outputs) /
                       static_cast<double>(count(tiles[0], shape) * area(tiles[0]));
  const std::int64_t least = there < kWell ? kShortestSide : kShortSide;
  for (std::size_t i = 1; i < tiles.size(); ++i) {
    const auto [shorter, longer] = std::minmax(tiles[i].rows, tiles[i].outputs);
    if (tiles[i].cooperative || shorter < least || longer < kLongSide) continue;
    if (best == 0 ? work(i) <= work(best) : work(i) < work(best)) best = i;
  }
  return best;
}

}  // namespace xdit::nn
