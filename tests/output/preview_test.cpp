#include "output/preview.h"

#include "tests/catch.h"

namespace xdit::output {

TEST_CASE("a projection is a linear map of channels to colours, clamped") {
  const std::vector<std::array<float, 3>> factors{{1, 0, 0}, {0, 1, -1}};
  const Projection projection{factors, {0, 0.5F, 0}};
  // Two pixels: (-1, 0) and (1, 3).
  CHECK(projected(projection, std::vector<float>{-1, 1, 0, 3}) ==
        std::vector<std::uint8_t>{0, 191, 128, 255, 255, 0});
}

TEST_CASE("projections are known of published latents only") {
  for (const auto& [family, channels] : {std::pair{"sd", 4}, {"sdxl", 4}, {"flux", 16}}) {
    const std::optional<Projection> known = projection_of(family, channels);
    REQUIRE(known);
    CHECK(std::ssize(known->factors) == channels);
    CHECK(!projection_of(family, channels + 1));
  }
  CHECK(!projection_of("flux", 4));
}

}  // namespace xdit::output
