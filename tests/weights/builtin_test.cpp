// Models without files have as many parameters as diffusers and transformers make of their published configs.
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "models/flux/tables.h"
#include "models/registry.h"
#include "models/vae/tables.h"
#include "tests/catch.h"
#include "text/tables/clip.h"
#include "text/tables/t5.h"

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

TEST_CASE("a config of a few bytes cannot ask for a list of parameters without bound") {
  const auto clip = [](const nlohmann::json& config, const std::string& where) {
    weights::Component component;
    component.folder = where;
    component.config = config;
    return text::read_clip_config(component).layers;
  };
  const std::vector<std::pair<std::string, std::function<void(const nlohmann::json&)>>> readers{
      {"num_layers", [](const auto& config) { (void)read_flux_config(config, "c"); }},
      {"num_single_layers", [](const auto& config) { (void)read_flux_config(config, "c"); }},
      {"num_layers", [](const auto& config) { (void)text::read_t5_config(config, "c"); }},
      {"num_hidden_layers", [&](const auto& config) { (void)clip(config, "c"); }},
      {"layers_per_block", [](const auto& config) { (void)read_vae_config(config, "c"); }},
  };
  for (const auto& [key, read] : readers) {
    nlohmann::json config{{"block_out_channels", {32}}, {key, 1024}};
    CAPTURE(key);
    CHECK_NOTHROW(read(config));
    config[key] = 1025;
    CHECK_THROWS_WITH(read(config), ContainsSubstring(key + ": expected an integer 1..1024, found 1025"));
  }
}

}  // namespace
}  // namespace xdit::models
