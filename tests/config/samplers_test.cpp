#include "config/samplers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "config/values.h"
#include "tests/catch.h"
#include "tests/config/support.h"

namespace xdit::config {

TEST_CASE(
    "every spelling of every scheduler, with all noise levels that it takes behind it, is that scheduler") {
  for (const Sampler& sampler : samplers())
    for (const std::string_view spelling :
         {sampler.name, sampler.diffusers, sampler.a1111, sampler.comfyui}) {
      if (spelling.empty()) continue;
      CAPTURE(spelling);
      REQUIRE(find_sampler(spelling));
      CHECK(find_sampler(spelling)->name == sampler.name);
      CHECK(find_sampler(spelling)->sigmas.empty());
      for (const std::string& sigmas : split(sampler.can.sigmas, '|'))
        for (const char* between : {" ", "_", "-", ""}) {
          CAPTURE(sigmas, between);
          const auto found = find_sampler(fmt::format("{}{}{}", spelling, between, sigmas));
          REQUIRE(found);
          CHECK(found->name == sampler.name);
          CHECK(found->sigmas == sigmas);
        }
    }
}

TEST_CASE("the key's schedulers are those of the table") {
  std::vector<std::string_view> names;
  for (const Sampler& sampler : samplers()) names.push_back(sampler.name);
  CHECK(find_key("sampling.scheduler")->allowed == fmt::format("{}", fmt::join(names, "|")));
}

TEST_CASE("schedulers are known by everyone's spelling") {
  for (const char* name :
       {"euler-ancestral", "euler_ancestral", "EulerAncestralDiscreteScheduler", "Euler a", "euler a"}) {
    CAPTURE(name);
    CHECK(with({std::string("sampling.scheduler=") + name}).spec.sampling.scheduler == "euler-ancestral");
    CHECK(find_sampler(name)->name == "euler-ancestral");
    CHECK(find_sampler(name)->sigmas.empty());
  }
  CHECK_FALSE(find_sampler("Euler b"));
  CHECK_FALSE(find_sampler(""));
  CHECK_FALSE(find_sampler("Karras"));
  CHECK(find_sampler("FlowMatchEulerDiscreteScheduler")->name == "flow-match-euler");
  CHECK(sampler_for("euler", true) == "flow-match-euler");
  CHECK(sampler_for("euler", false) == "euler");
  CHECK(sampler_for("ddim", true) == "ddim");
}

TEST_CASE("a scheduler's spelling may name the noise levels too, which what comes later still changes") {
  for (const auto& [spelling, name, sigmas] : {std::tuple{"DPM++ 2M Karras", "dpm++-2m", "karras"},
                                               {"DPM++ 2M SDE Exponential", "dpm++-2m-sde", "exponential"},
                                               {"dpmpp_2m_karras", "dpm++-2m", "karras"},
                                               {"Euler SGM Uniform", "euler", "sgm-uniform"},
                                               {"Euler a", "euler-ancestral", "default"},
                                               {"Euler Beta", "euler", "beta"}}) {
    CAPTURE(spelling);
    const RunSpec spec = with({std::string("sampling.scheduler=") + spelling}).spec;
    CHECK(spec.sampling.scheduler == name);
    CHECK(spec.sampling.sigmas == sigmas);
  }
  const std::string karras = "sampling.scheduler=DPM++ 2M Karras";
  CHECK(with({"sampling.sigmas=simple", karras}).spec.sampling.sigmas == "karras");
  CHECK(with({karras, "sampling.sigmas=default"}).spec.sampling.sigmas == "default");
}

TEST_CASE("names that ComfyUI and A1111 have besides") {
  const auto sampling = [](const std::vector<std::string>& assignments) {
    return with(assignments).spec.sampling;
  };
  CHECK(sampling({"sampling.scheduler=uni_pc_bh2"}).scheduler == "unipc");
  CHECK(sampling({"sampling.scheduler=uni_pc_bh2_karras"}).sigmas == "karras");
  CHECK(sampling({"sampling.scheduler=dpmpp_2m_sde_gpu"}).scheduler == "dpm++-2m-sde");
  CHECK(sampling({"sampling.scheduler=dpmpp_2m_sde_gpu exponential"}).sigmas == "exponential");
  CHECK(sampling({"sampling.scheduler=DPM++ 2M Automatic"}).sigmas == "default");
  const std::vector<std::string> comfyui{"sampling.scheduler=dpmpp_2m", "sampling.sigmas=karras"};
  CHECK(sampling(comfyui).scheduler == "dpm++-2m");
  CHECK(sampling(comfyui).sigmas == "karras");
  for (const auto& [spelling, sigmas] : {std::pair{"normal", "default"},
                                         {"automatic", "default"},
                                         {"Automatic", "default"},
                                         {"Uniform", "default"},
                                         {"sgm_uniform", "sgm-uniform"},
                                         {"SGM Uniform", "sgm-uniform"},
                                         {"Karras", "karras"}})
    CHECK(sampling({fmt::format("sampling.sigmas={}", spelling)}).sigmas == sigmas);
  CHECK(sampling({"sampling.prediction=v_prediction"}).prediction == "v-prediction");
  const Error refused = fault({"sampling.sigmas=ddim_uniform"});
  CHECK_THAT(refused.message(), ContainsSubstring("ddim_uniform"));
  CHECK(refused.fix() == "--set sampling.timestep_spacing=leading");
}

TEST_CASE("every spacing has a spelling of A1111's, which is read back") {
  for (const std::string& name : split(kAllSigmas, '|')) {
    CAPTURE(name);
    const std::string_view spelled = a1111_sigmas(name);
    CHECK(std::isupper(static_cast<unsigned char>(spelled.front())) != 0);
    CHECK(find_sigmas(spelled) == name);
    CHECK(with({fmt::format("sampling.sigmas={}", spelled)}).spec.sampling.sigmas == name);
  }
}

TEST_CASE("what a model was trained for is in its scheduler_config.json") {
  using nlohmann::json;
  CHECK(trained_model({{"_class_name", "FlowMatchEulerDiscreteScheduler"}}).flow_matching);
  CHECK(trained_model({{"shift", 3.0}}).flow_matching);
  CHECK_FALSE(trained_model({{"_class_name", "EulerDiscreteScheduler"}, {"shift", 3.0}}).flow_matching);
  CHECK(trained_model({{"prediction_type", "sample"}}).predicts_pictures);
  for (const json& odd : {json(), json::array(), json{{"_class_name", 1}, {"prediction_type", nullptr}}}) {
    CHECK_FALSE(trained_model(odd).flow_matching);
    CHECK_FALSE(trained_model(odd).predicts_pictures);
  }
}

}  // namespace xdit::config
