#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "schedulers/sampler.h"
#include "tests/catch.h"
#include "tests/tensors.h"

namespace xdit::schedulers {
namespace {

const std::filesystem::path kGoldens = std::filesystem::path(XDIT_TEST_DATA) / "samplers";
constexpr double kTolerance = 1e-4;

// Stands for a network, as scripts/goldens/make_samplers.py computes it.
at::Tensor model(const at::Tensor& latents, float timestep) {
  const at::Tensor places = at::arange(latents.numel(), at::kFloat).reshape(latents.sizes());
  const at::Tensor time = at::scalar_tensor(timestep) * 0.003;
  return at::tanh(latents * 0.7 + at::cos(places + time));
}

std::unique_ptr<Sampler> sampler_of(const Json& golden) {
  return make_sampler({.name = golden.at("sampler"),
                       .sigmas = golden.at("sigmas"),
                       .timestep_spacing = golden.at("timestep_spacing"),
                       .steps = golden.at("steps"),
                       .image_tokens = golden.at("image_tokens")},
                      golden.at("config"));
}

// Latents before and after each evaluation from `first` on.
std::vector<at::Tensor> run(const Sampler& sampler, std::int64_t first, const at::Tensor& noise,
                            const at::Tensor& picture, const at::Generator& generator) {
  std::vector<at::Tensor> latents{first > 0 ? sampler.begin(noise, picture, first) : sampler.begin(noise)};
  History history;
  for (std::int64_t i = first; i < std::ssize(sampler.timesteps()); ++i) {
    const at::Tensor now = latents.back();
    const at::Tensor output =
        model(sampler.model_input(i, now), sampler.timesteps()[static_cast<std::size_t>(i)]);
    at::Tensor drawn;
    if (sampler.draws(i) != Draw::kNone) drawn = at::randn(now.sizes(), generator);
    latents.push_back(sampler.step(i, now, output, drawn, history));
  }
  return latents;
}

double largest(const at::Tensor& difference) {
  return difference.abs().max().item<double>();
}

TEST_CASE("latents are diffusers' after every evaluation") {
  const Json cases = read_json(kGoldens / "cases.json", ExitCode::kModel).at("cases");
  const std::map<std::string, at::Tensor> tensors = test::read_tensors(kGoldens / "samplers.safetensors");
  REQUIRE(cases.size() > 500);
  std::map<std::string, std::pair<double, std::string>> worst;
  for (std::size_t number = 0; number < cases.size(); ++number) {
    const Json& golden = cases[number];
    const auto name = golden.at("name").get<std::string>();
    CAPTURE(name);
    const std::unique_ptr<Sampler> sampler = sampler_of(golden);
    const std::int64_t first = golden.at("first").get<std::int64_t>() * sampler->order();

    const at::Tensor times = tensors.at(std::to_string(number) + ".timesteps");
    const auto ours =
        at::from_blob(const_cast<float*>(sampler->timesteps().data()), {std::ssize(sampler->timesteps())});
    REQUIRE(ours.sizes() == times.sizes());
    const std::int64_t count = times.size(0) - first;
    CHECK(largest(ours.narrow(0, first, count) - times.narrow(0, first, count)) < 0.01);

    const at::Tensor expected = tensors.at(std::to_string(number) + ".latents");
    const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(42);
    const at::Tensor noise = at::randn(expected[0].sizes(), generator);
    const at::Tensor picture = at::sin(at::arange(noise.numel(), at::kFloat)).reshape(noise.sizes());
    const std::vector<at::Tensor> latents = run(*sampler, first, noise, picture, generator);
    const auto rows = golden.at("rows").get<std::vector<std::size_t>>();
    REQUIRE(rows.back() + 1 == latents.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      CAPTURE(rows[i]);
      const at::Tensor reference = expected[static_cast<std::int64_t>(i)];
      // Latents of a zero terminal SNR begin at 4096 times the noise, where float32 ends at 1e-3.
      const double bound = kTolerance * std::max(1.0, largest(reference) / 100);
      const double error = largest(latents[rows[i]] - reference);
      CHECK(error <= bound);
      auto& [most, where] = worst[golden.at("sampler")];
      if (error / bound * kTolerance > most) {
        most = error / bound * kTolerance;
        where = name;
      }
    }
  }
  if (std::getenv("XDIT_TEST_PRINT") != nullptr)
    for (const auto& [sampler, error] : worst)
      std::cout << sampler << " " << error.first << " (" << error.second << ")\n";
}

}  // namespace
}  // namespace xdit::schedulers
