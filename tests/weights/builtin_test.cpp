// Models without files have as many parameters as diffusers and transformers make of their published configs.
#include <functional>
#include <numeric>

#include "models/registry.h"
#include "tests/catch.h"

namespace xdit::models {
namespace {

std::int64_t parameters_of(const Network& network) {
  std::int64_t sum = 0;
  for (const weights::Parameter& parameter : network.parameters)
    sum += std::reduce(parameter.shape.begin(), parameter.shape.end(), std::int64_t{1}, std::multiplies<>());
  return sum;
}

TEST_CASE("built-in models are as large as the published ones") {
  constexpr std::int64_t kDecoder = 49'490'199;
  const std::map<std::string, std::vector<std::int64_t>> sizes{
      {"sdxl", {123'060'480, 694'659'840, 2'567'463'684, kDecoder}},
      {"stabilityai/stable-diffusion-xl-base-1.0", {123'060'480, 694'659'840, 2'567'463'684, kDecoder}},
      {"sdxl-refiner", {694'659'840, 2'259'526'660, kDecoder}},
      {"sd15", {123'060'480, 859'520'964, kDecoder}},
      {"SD21", {340'387'840, 865'910'724, kDecoder}},
  };
  for (const auto& [name, expected] : sizes) {
    CAPTURE(name);
    std::vector<std::int64_t> found;
    for (const Network& network : open(name, {}, {}, true).networks) found.push_back(parameters_of(network));
    CHECK(found == expected);
  }
}

TEST_CASE("the published sizes are the defaults") {
  const auto height = [](const char* name) { return open(name, {}, {}, true).defaults.height; };
  CHECK(height("sdxl") == 1024);
  CHECK(height("sd15") == 512);
  CHECK(height("sd21") == 768);
  CHECK(height("FLUX.1-dev") == std::nullopt);
}

}  // namespace
}  // namespace xdit::models
