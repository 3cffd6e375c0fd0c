#include "schedulers/flow_match.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "schedulers/sampler.h"
#include "tests/catch.h"

namespace xdit::schedulers {
namespace {

const std::filesystem::path kFlux = std::filesystem::path(XDIT_TEST_DATA) / "flux";

FlowMatchConfig config_of(const std::string& model) {
  return read_flow_match_config(
      read_json(kFlux / model / "scheduler/scheduler_config.json", ExitCode::kModel), model);
}

TEST_CASE("sigmas and timesteps are diffusers'") {
  const Json schedules = read_json(kFlux / "schedules.json", ExitCode::kModel).at("schedules");
  REQUIRE(schedules.size() >= 20);
  for (const Json& expected : schedules) {
    CAPTURE(expected.at("model"), expected.at("image_tokens"), expected.at("steps"), expected.at("shift"));
    std::optional<double> shift;
    if (!expected.at("shift").is_null()) shift = expected.at("shift").get<double>();
    const FlowMatchSchedule schedule = flow_match_schedule(
        config_of(expected.at("model")), expected.at("steps"), expected.at("image_tokens"), shift);
    const auto sigmas = expected.at("sigmas").get<std::vector<float>>();
    const auto timesteps = expected.at("timesteps").get<std::vector<float>>();
    REQUIRE(schedule.sigmas.size() == sigmas.size());
    REQUIRE(schedule.timesteps.size() == timesteps.size());
    for (std::size_t i = 0; i < sigmas.size(); ++i)
      CHECK(std::abs(schedule.sigmas[i] - sigmas[i]) <= 1.2e-7F);
    for (std::size_t i = 0; i < timesteps.size(); ++i)
      CHECK(std::abs(schedule.timesteps[i] - timesteps[i]) <= 1.2e-7F * 1000);
  }
}

TEST_CASE("a config that the scheduler does not have is refused") {
  CHECK_THROWS_WITH(read_flow_match_config({{"stochastic_sampling", true}}, "config"),
                    ContainsSubstring("stochastic_sampling"));
  CHECK_THROWS_AS(read_flow_match_config({{"shift", "three"}}, "config"), Error);
  CHECK_THROWS_AS(read_flow_match_config({{"shift", 0}}, "config"), Error);
  CHECK_THROWS_AS(read_flow_match_config({{"time_shift_type", "cubic"}}, "config"), Error);
}

TEST_CASE("a constant velocity field is integrated exactly") {
  const auto sampler = make_sampler(
      {.name = "flow-match-euler", .steps = 7, .image_tokens = 64, .shift = 3.0}, Json{{"shift", 1.0}});
  at::manual_seed(0);
  const at::Tensor noise = at::randn({5, 4});
  const at::Tensor velocity = at::randn({5, 4});
  at::Tensor latents = noise;
  History history;
  for (std::int64_t i = 0; i < 7; ++i) latents = sampler->step(i, latents, velocity, {}, history);
  CHECK(at::allclose(latents, noise - velocity, 1e-5, 1e-6));
  CHECK_THROWS_WITH(make_sampler({.name = "flow-match-eular"}, Json{}),
                    ContainsSubstring("flow-match-euler"));
}

}  // namespace
}  // namespace xdit::schedulers
