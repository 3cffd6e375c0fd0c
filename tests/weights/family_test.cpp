// What diffusers' pipelines do to the settings that a folder holds.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/registry.h"
#include "models/vae/tables.h"
#include "tests/catch.h"
#include "tests/scratch.h"

namespace xdit::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A small model with other settings in one of its files.
Model with(const char* name, const fs::path& file, const json& settings) {
  const tests::Scratch folder;
  const fs::path own = folder.path() / "model";
  fs::copy(fs::path(XDIT_TEST_DATA) / name, own, fs::copy_options::recursive);
  std::ifstream from(own / file);
  json config = json::parse(from);
  config.update(settings);
  std::ofstream(own / file) << config;
  return open(own.string(), {}, {}, false);
}

VaeConfig vae_of(const Model& model) {
  return read_vae_config(model.files.components.at("vae").config, "vae");
}

}  // namespace

TEST_CASE("Stable Diffusion's scheduler steps from 1 and clips nothing, whatever its file says") {
  const json settings{{"steps_offset", 0}, {"clip_sample", true}};
  const json sd = with("sd/tiny-sd15", "scheduler/scheduler_config.json", settings).files.scheduler_config;
  CHECK(sd.at("steps_offset") == 1);
  CHECK(sd.at("clip_sample") == false);
  const json xl = with("sd/tiny-sdxl", "scheduler/scheduler_config.json", settings).files.scheduler_config;
  CHECK(xl.at("steps_offset") == 0);
  CHECK(xl.at("clip_sample") == true);
}

TEST_CASE("a Stable Diffusion of diffusers below 0.9 makes pictures of 64 latent pixels a side or more") {
  const auto side = [](const char* name, const json& size, const json& version) {
    const Model model =
        with(name, "unet/config.json", {{"sample_size", size}, {"_diffusers_version", version}});
    return *model.defaults.height / model.shape.latent_scale;
  };
  for (const char* version : {"0.6.0", "0.8.1.dev0", "0.8"}) CHECK(side("sd/tiny-sd15", 32, version) == 64);
  for (const char* version : {"0.9.0", "0.9.0.dev0", "0.10.2", "1.0"})
    CHECK(side("sd/tiny-sd15", 32, version) == 32);
  CHECK(side("sd/tiny-sd15", 96, "0.6.0") == 96);
  CHECK(side("sd/tiny-sd15", {32, 32}, "0.6.0") == 32);
  CHECK(side("sd/tiny-sd15", 32, nullptr) == 32);
  CHECK(side("sd/tiny-sdxl", 32, "0.6.0") == 32);
}

TEST_CASE("latents are shifted as the family's pipeline does") {
  const fs::path file = "vae/config.json";
  const json four{1.5, 2, 3, 4};
  const json settings{{"shift_factor", 0.5}, {"latents_mean", four}, {"latents_std", four}};
  const VaeConfig sd = vae_of(with("sd/tiny-sd15", file, settings));
  CHECK((sd.shift_factor == 0 && sd.means.empty() && sd.deviations.empty()));
  const VaeConfig xl = vae_of(with("sd/tiny-sdxl", file, settings));
  CHECK((xl.shift_factor == 0 && xl.means == four.get<std::vector<double>>() && xl.deviations == xl.means));
  const VaeConfig half = vae_of(with("sd/tiny-sdxl", file, {{"latents_mean", four}}));
  CHECK((half.means.empty() && half.deviations.empty()));
  const VaeConfig flux = vae_of(with("flux/tiny-dev", file, {{"shift_factor", 0.5}}));
  CHECK((flux.shift_factor == 0.5 && flux.means.empty()));
  CHECK_THROWS(with("sd/tiny-sdxl", file, {{"latents_mean", {1, 2}}, {"latents_std", {1, 2}}}));
}

}  // namespace xdit::models
