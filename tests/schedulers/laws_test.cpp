#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <vector>

#include "config/samplers.h"
#include "config/values.h"
#include "core/error.h"
#include "core/json.h"
#include "schedulers/beta_quantile.h"
#include "schedulers/sampler.h"
#include "tests/catch.h"

namespace xdit::schedulers {
namespace {

const Json kNoiseModel{{"_class_name", "DDIMScheduler"}, {"prediction_type", "v_prediction"}};
const Json kFlowModel{{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"shift", 3.0}};

std::vector<std::pair<std::string, Json>> all_samplers() {
  std::vector<std::pair<std::string, Json>> all;
  for (const config::Sampler& sampler : config::samplers())
    all.emplace_back(sampler.name, sampler.can.flow_matching ? kFlowModel : kNoiseModel);
  return all;
}

// A picture's latents after evaluations [first, end), with outputs and noise from fixed tensors.
struct Inputs {
  at::Tensor latents, outputs, noise;  // the latter of all evaluations
};
Inputs inputs(const Sampler& sampler, at::ScalarType type) {
  at::manual_seed(1);
  const auto count = static_cast<std::int64_t>(sampler.timesteps().size());
  return {at::randn({61, 3}).to(type), at::randn({count, 61, 3}).to(type),
          at::randn({count, 61, 3}).to(type)};
}
Inputs rows_of(const Inputs& all, std::int64_t first, std::int64_t count) {
  return {all.latents.narrow(0, first, count).clone(), all.outputs.narrow(1, first, count).clone(),
          all.noise.narrow(1, first, count).clone()};
}
at::Tensor advance(const Sampler& sampler, const Inputs& in, at::Tensor latents, std::int64_t first,
                   std::int64_t end, History& history) {
  for (std::int64_t i = first; i < end; ++i)
    latents = sampler.step(i, latents, in.outputs[i],
                           sampler.draws(i) == Draw::kNone ? at::Tensor() : in.noise[i], history);
  return latents;
}
at::Tensor whole_run(const Sampler& sampler, const Inputs& in) {
  History history;
  return advance(sampler, in, sampler.begin(in.latents), 0, std::ssize(sampler.timesteps()), history);
}

std::string refusal(const SamplerOptions& options, const Json& config, ExitCode code) {
  try {
    static_cast<void>(make_sampler(options, config));
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "nothing";
}

TEST_CASE("a part of the latents gives that part of the result, bit for bit") {
  for (const auto& [name, config] : all_samplers())
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      CAPTURE(name, type);
      const auto sampler = make_sampler({.name = name, .steps = 7, .image_tokens = 256}, config);
      const Inputs all = inputs(*sampler, type);
      const at::Tensor whole = whole_run(*sampler, all);
      CHECK(whole.scalar_type() == type);
      CHECK(whole.isfinite().all().item<bool>());
      std::vector<at::Tensor> parts;
      for (const auto& [first, count] : {std::pair{0, 1}, {1, 17}, {18, 43}})
        parts.push_back(whole_run(*sampler, rows_of(all, first, count)));
      CHECK(at::equal(at::cat(parts), whole));
      CHECK(at::equal(sampler->model_input(0, all.latents).narrow(0, 5, 3),
                      sampler->model_input(0, all.latents.narrow(0, 5, 3).clone())));
    }
}

TEST_CASE(
    "a history belongs to its picture: two pictures in turn are as each alone, and a copy goes on alike") {
  for (const auto& [name, config] : all_samplers()) {
    CAPTURE(name);
    const auto sampler = make_sampler({.name = name, .steps = 6, .image_tokens = 256}, config);
    const std::int64_t count = std::ssize(sampler->timesteps());
    const Inputs one = inputs(*sampler, at::kFloat);
    const Inputs other{one.latents * 0.5, one.outputs * -0.3, one.noise * 0.9};
    History first, second;
    at::Tensor a = sampler->begin(one.latents);
    at::Tensor b = sampler->begin(other.latents);
    for (std::int64_t i = 0; i < count; ++i) {
      a = advance(*sampler, one, a, i, i + 1, first);
      History copy = second;  // a step that is thrown away leaves no trace
      static_cast<void>(advance(*sampler, one, b, i, i + 1, copy));
      b = advance(*sampler, other, b, i, i + 1, second);
    }
    CHECK(at::equal(a, whole_run(*sampler, one)));
    CHECK(at::equal(b, whole_run(*sampler, other)));
  }
}

TEST_CASE("noise is drawn where it counts, and only there") {
  for (const auto& [name, config] : all_samplers()) {
    CAPTURE(name);
    const auto sampler = make_sampler({.name = name, .steps = 6, .image_tokens = 256}, config);
    const Inputs in = inputs(*sampler, at::kFloat);
    const Inputs other{in.latents, in.outputs, in.noise + 1};
    std::int64_t draws = 0;
    for (std::int64_t i = 0; i < std::ssize(sampler->timesteps()); ++i)
      draws += sampler->draws(i) == Draw::kNone ? 0 : 1;
    CHECK(at::equal(whole_run(*sampler, in), whole_run(*sampler, other)) == (draws == 0));
  }
  CHECK(make_sampler({.name = "dpm++-2m-sde", .steps = 3}, kNoiseModel)->draws(0) == Draw::kFloat32);
}

TEST_CASE("a picture that the model knows comes back, wherever it begins") {
  at::manual_seed(2);
  const at::Tensor picture = at::randn({9, 4});
  const at::Tensor noise = at::randn({9, 4});
  Json config = kNoiseModel;
  config["prediction_type"] = "sample";  // the model's answer is the picture itself
  // ddim keeps the noise of the first trained step.
  for (const auto& [name, tolerance] : {std::pair{"euler", 1e-5},
                                        {"heun", 1e-5},
                                        {"lms", 1e-4},
                                        {"dpm++-2m", 1e-5},
                                        {"dpm++-2m-sde", 1e-5},
                                        {"unipc", 1e-5},
                                        {"ddim", 0.1},
                                        {"ddpm", 1e-5},
                                        {"lcm", 1e-3}}) {
    for (const std::int64_t step : {1, 5, 9}) {
      CAPTURE(name, step);
      const auto sampler = make_sampler({.name = name, .steps = 10}, config);
      const std::int64_t count = std::ssize(sampler->timesteps());
      const std::int64_t first = step * sampler->order();
      const Inputs in{{}, picture.expand({count, 9, 4}), at::zeros({count, 9, 4})};
      History history;
      const at::Tensor found =
          advance(*sampler, in, sampler->begin(noise, picture, first), first, count, history);
      CHECK(at::allclose(found, picture, 0, tolerance));
    }
  }
}

TEST_CASE("what a model predicts may be said instead of read from its config") {
  const auto stepped = [](const std::string& said, const char* configured) {
    const auto sampler = make_sampler({.name = "euler", .prediction = said, .steps = 4},
                                      Json{{"prediction_type", configured}});
    History history;
    return sampler->step(1, at::full({3, 2}, 0.5), at::full({3, 2}, 0.25), {}, history);
  };
  const at::Tensor epsilon = stepped("auto", "epsilon");
  const at::Tensor velocity = stepped("auto", "v_prediction");
  CHECK(!at::allclose(epsilon, velocity));
  CHECK(at::equal(stepped("epsilon", "v_prediction"), epsilon));
  CHECK(at::equal(stepped("v-prediction", "epsilon"), velocity));
}

TEST_CASE("the table says how often a sampler evaluates the network, and which noise levels it takes") {
  for (const auto& [name, config] : all_samplers()) {
    const config::Sampler& row = *config::sampler_named(name);
    for (const std::int64_t steps : {1, 2, 7, 30}) {
      CAPTURE(name, steps);
      const auto sampler = make_sampler({.name = name, .steps = steps, .image_tokens = 256}, config);
      CHECK(sampler->order() == row.can.order);
      CHECK(std::ssize(sampler->timesteps()) == row.evaluations(steps));
    }
    const std::vector<std::string> taken = config::split(row.can.sigmas, '|');
    for (const std::string& sigmas : config::split(config::kAllSigmas, '|')) {
      CAPTURE(name, sigmas);
      const SamplerOptions options{.name = name, .sigmas = sigmas, .steps = 4, .image_tokens = 256};
      if (std::find(taken.begin(), taken.end(), sigmas) != taken.end())
        CHECK(std::ssize(make_sampler(options, config)->timesteps()) == row.evaluations(4));
      else
        CHECK_THAT(refusal(options, config, ExitCode::kUsage), ContainsSubstring("--sigmas"));
    }
  }
}

TEST_CASE("latents stay finite at all noise levels, also from a terminal signal of zero") {
  for (auto [name, config] : all_samplers()) {
    config["rescale_betas_zero_snr"] = true;
    for (const std::string& sigmas : config::split(config::sampler_named(name)->can.sigmas, '|'))
      for (const std::int64_t steps : {1, 2, 3, 8, 50}) {
        CAPTURE(name, sigmas, steps);
        const auto sampler =
            make_sampler({.name = name, .sigmas = sigmas, .steps = steps, .image_tokens = 256}, config);
        CHECK(whole_run(*sampler, inputs(*sampler, at::kFloat)).isfinite().all().item<bool>());
      }
  }
}

TEST_CASE("samplers and models that do not fit each other are told apart") {
  CHECK_THAT(refusal({.name = "eulr"}, kNoiseModel, ExitCode::kUsage),
             ContainsSubstring("did you mean euler"));
  CHECK_THAT(refusal({.name = "euler"}, kFlowModel, ExitCode::kUsage),
             ContainsSubstring("flow-match-euler, flow-match-heun") && !ContainsSubstring("ddim"));
  CHECK_THAT(refusal({.name = "flow-match-euler"}, kNoiseModel, ExitCode::kUsage),
             ContainsSubstring("euler, euler-ancestral") && !ContainsSubstring("flow-match-heun"));
  CHECK_THAT(refusal({.name = "ddim", .sigmas = "karras"}, kNoiseModel, ExitCode::kUsage),
             ContainsSubstring("--sigmas") && ContainsSubstring("dpm++-2m"));
  for (const char* sigmas : {"sgm-uniform", "simple"})
    CHECK_THAT(refusal({.name = "lcm", .sigmas = sigmas}, kNoiseModel, ExitCode::kUsage),
               ContainsSubstring("ddim, ddpm, pndm") && !ContainsSubstring("flow-match"));
  CHECK_THAT(refusal({.name = "flow-match-heun", .sigmas = "beta"}, kFlowModel, ExitCode::kUsage),
             ContainsSubstring("flow-match-euler"));
  CHECK_THAT(
      refusal({.name = "flow-match-euler", .timestep_spacing = "leading"}, kFlowModel, ExitCode::kUsage),
      ContainsSubstring("timestep_spacing"));
  CHECK_THAT(refusal({.name = "flow-match-euler", .prediction = "epsilon"}, kFlowModel, ExitCode::kUsage),
             ContainsSubstring("sampling.prediction"));
  CHECK_THAT(refusal({.name = "lcm", .steps = 51}, kNoiseModel, ExitCode::kUsage), ContainsSubstring("50"));
  CHECK_THAT(refusal({.name = "euler", .steps = 1001}, kNoiseModel, ExitCode::kUsage),
             ContainsSubstring("1000"));
  CHECK_THAT(refusal({.name = "pndm"}, Json{{"prediction_type", "sample"}}, ExitCode::kUsage),
             ContainsSubstring("pndm") && ContainsSubstring("ddim"));
}

TEST_CASE("a config that no sampler here has is refused by its key") {
  for (const auto& [sampler, key, value] : std::vector<std::tuple<const char*, std::string, Json>>{
           {"ddim", "thresholding", true},
           {"dpm++-2m", "use_lu_lambdas", true},
           {"dpm++-2m", "use_flow_sigmas", true},
           {"euler", "interpolation_type", "log_linear"},
           {"euler", "timestep_type", "continuous"},
           {"euler", "prediction_type", "flow_prediction"},
           {"euler", "timestep_spacing", "even"},
           {"euler", "beta_schedule", "sigmoid"},
           {"euler", "final_sigmas_type", "one"},
           {"dpm++-2m", "lambda_min_clipped", -5.1},
           {"unipc", "disable_corrector", Json::array({0})},
           {"euler", "sigma_min", 0.1},
           {"euler", "solver_order", 4},
           {"euler", "steps_offset", "one"},
           {"euler", "num_train_timesteps", 0}}) {
    CAPTURE(key);
    const std::string said = refusal({.name = sampler}, Json{{key, value}}, ExitCode::kModel);
    CHECK_THAT(said, ContainsSubstring("scheduler_config.json"));
    if (value != Json("one")) CHECK_THAT(said, ContainsSubstring(key));
  }
  CHECK(make_sampler({.name = "euler"}, Json{{"sigma_min", nullptr}, {"thresholding", false}}) != nullptr);
}

TEST_CASE("a setting of another class's leaves a sampler alone") {
  Json config = kNoiseModel;
  config.update({{"thresholding", true}, {"variance_type", "fixed_small_log"}, {"solver_p", "x"}});
  CHECK_NOTHROW(make_sampler({.name = "euler", .steps = 4}, config));
  CHECK_THAT(refusal({.name = "dpm++-2m", .steps = 4}, config, ExitCode::kModel),
             ContainsSubstring("thresholding"));
  config["thresholding"] = false;
  CHECK_THAT(refusal({.name = "ddpm", .steps = 4}, config, ExitCode::kModel),
             ContainsSubstring("variance_type"));
  CHECK_THAT(refusal({.name = "unipc", .steps = 4}, config, ExitCode::kModel), ContainsSubstring("solver_p"));
}

TEST_CASE("as many steps as the model was trained on, and an offset, are one too many") {
  for (const char* name : {"ddim", "ddpm", "pndm"}) {
    CAPTURE(name);
    CHECK_THAT(refusal({.name = name, .steps = 1000}, kNoiseModel, ExitCode::kUsage),
               ContainsSubstring("timestep 1000"));
    CHECK_NOTHROW(make_sampler({.name = name, .steps = 999}, kNoiseModel));
  }
}

TEST_CASE("as many steps as there are trained timesteps end in numbers, or are refused") {
  std::map<std::string, std::string> refused;  // what of it, by sampler
  for (const auto& [name, config] : all_samplers())
    for (const char* spacing : {"linspace", "leading", "trailing"})
      for (const std::int64_t steps : {998, 999, 1000}) {
        if (name == "lcm" || config == kFlowModel) continue;
        CAPTURE(name, spacing, steps);
        const SamplerOptions options{.name = name, .timestep_spacing = spacing, .steps = steps};
        if (const std::string why = refusal(options, config, ExitCode::kUsage); why != "nothing") {
          CHECK_THAT(why, ContainsSubstring("--steps") && ContainsSubstring("timestep_spacing=trailing"));
          refused[name] += fmt::format("{} {},", spacing, steps);
          continue;
        }
        const auto sampler = make_sampler(options, config);
        const Inputs all = inputs(*sampler, at::kFloat);
        CHECK(whole_run(*sampler, rows_of(all, 0, 1)).isfinite().all().item<bool>());
      }
  const std::string whole = "leading 1000,";
  const std::string multistep = "linspace 1000,leading 999,leading 1000,";
  CHECK(refused == std::map<std::string, std::string>{{"ddim", whole},
                                                      {"ddpm", whole},
                                                      {"pndm", whole},
                                                      {"lms", whole},
                                                      {"dpm++-2m", multistep},
                                                      {"dpm++-2m-sde", multistep},
                                                      {"unipc", multistep}});
}

TEST_CASE("quantiles of the beta distribution") {
  // scipy.stats.beta.ppf
  CHECK(beta_quantile(0, 0.6, 0.6) == 0);
  CHECK(beta_quantile(1, 0.6, 0.6) == 1);
  CHECK(std::abs(beta_quantile(0.5, 0.6, 0.6) - 0.5) < 1e-13);
  CHECK(std::abs(beta_quantile(0.3, 1, 1) - 0.3) < 1e-13);
  CHECK(std::abs(beta_quantile(0.25, 2, 1) - 0.5) < 1e-13);
  CHECK(std::abs(beta_quantile(0.19, 1, 2) - 0.1) < 1e-13);
}

}  // namespace
}  // namespace xdit::schedulers
