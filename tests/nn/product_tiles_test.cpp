#include "nn/product_tiles.h"

#include <vector>

#include "tests/catch.h"

namespace xdit::nn {
namespace {

constexpr std::int64_t kHopper = 132;

ProductTile together(std::int64_t outputs, std::int64_t rows) {
  return {.outputs = outputs, .rows = rows, .cooperative = true};
}
ProductTile in_turn(std::int64_t outputs, std::int64_t rows) {
  return {.outputs = outputs, .rows = rows, .cooperative = false};
}

// cuBLASLt's guesses for products of SDXL and Stable Diffusion 1.5; what was the fastest on an H200.
TEST_CASE("where sums are short, warps take turns") {
  const std::vector<ProductTile> wide{together(168, 128), in_turn(128, 128),  together(176, 128),
                                      together(256, 128), together(128, 256), in_turn(112, 128)};
  CHECK(best_tile(wide, {.rows = 1024, .inputs = 1280, .outputs = 10240}, kHopper) == 1);
  const std::vector<ProductTile> queries{together(320, 128), together(192, 128), together(128, 192),
                                         together(128, 256), in_turn(128, 160),  together(256, 128),
                                         in_turn(168, 128),  in_turn(144, 128)};
  CHECK(best_tile(queries, {.rows = 8192, .inputs = 640, .outputs = 1920}, kHopper) == 4);
}

TEST_CASE("a tile that reaches beyond the outputs gives way to a small one") {
  const std::vector<ProductTile> narrow{together(168, 128), in_turn(80, 128), in_turn(160, 64),
                                        together(176, 128), together(192, 128)};
  CHECK(best_tile(narrow, {.rows = 8192, .inputs = 320, .outputs = 320}, kHopper) == 1);
  const std::vector<ProductTile> even{together(128, 160), in_turn(80, 128), in_turn(128, 80)};
  CHECK(best_tile(even, {.rows = 4096, .inputs = 640, .outputs = 640}, kHopper) == 0);
}

// FLUX's, at 2048 x 2048 and at 1024 x 1024.
TEST_CASE("where sums are long, large tiles are shared out evenly") {
  const std::vector<ProductTile> tiles{together(192, 192), together(256, 128), together(128, 256),
                                       together(128, 192), in_turn(128, 128)};
  CHECK(best_tile(tiles, {.rows = 16896, .inputs = 3072, .outputs = 12288}, kHopper) == 1);
  CHECK(best_tile(tiles, {.rows = 16896, .inputs = 15360, .outputs = 3072}, kHopper) == 1);
  CHECK(best_tile(tiles, {.rows = 16896, .inputs = 3072, .outputs = 9216}, kHopper) == 1);  // as even
  CHECK(best_tile(tiles, {.rows = 4608, .inputs = 3072, .outputs = 9216}, kHopper) == 1);
  CHECK(best_tile(tiles, {.rows = 4608, .inputs = 3072, .outputs = 12288}, kHopper) == 1);  // 3.7 % less
  CHECK(best_tile(tiles, {.rows = 4608, .inputs = 15360, .outputs = 3072}, kHopper) == 0);
  // Small and long tiles, whose shares would be more even, are slower.
  const std::vector<ProductTile> small{together(256, 128), together(128, 192), together(320, 128)};
  CHECK(best_tile(small, {.rows = 4608, .inputs = 15360, .outputs = 3072}, kHopper) == 0);
  const std::vector<ProductTile> first{together(128, 192), together(256, 128)};
  CHECK(best_tile(first, {.rows = 4608, .inputs = 3072, .outputs = 9216}, kHopper) == 0);
}

TEST_CASE("the first guess stays where nothing speaks against it") {
  const std::vector<ProductTile> wide{together(256, 128), in_turn(128, 128)};
  const ProductShape shape{.rows = 2048, .inputs = 1280, .outputs = 10240};
  CHECK(best_tile(wide, shape, kHopper) == 1);
  CHECK(best_tile(wide, {.rows = 2048, .inputs = 1288, .outputs = 10240}, kHopper) == 0);  // long sums
  CHECK(best_tile(std::vector{in_turn(64, 64), in_turn(128, 128)}, shape, kHopper) == 0);
  CHECK(best_tile(std::vector{together(256, 128), in_turn(128, 64), in_turn(64, 256)}, shape, kHopper) == 0);
  // A multiprocessor computes as much with the small tiles, less, more.
  CHECK(best_tile(wide, {.rows = 128, .inputs = 640, .outputs = 132 * 256}, kHopper) == 1);
  CHECK(best_tile(wide, {.rows = 128, .inputs = 640, .outputs = 132 * 256 + 128}, kHopper) == 1);
  CHECK(best_tile(std::vector{together(256, 128), in_turn(112, 128)},
                  {.rows = 128, .inputs = 640, .outputs = 132 * 256}, kHopper) == 0);
  CHECK(best_tile({}, shape, kHopper) == 0);
}

}  // namespace
}  // namespace xdit::nn
