#include "schedulers/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "config/samplers.h"
#include "core/error.h"
#include "schedulers/timesteps.h"

namespace xdit::schedulers {
namespace {

using Levels = NoiseLevels(const DiffusionConfig&, std::int64_t steps);

template <LevelStyle style>
NoiseLevels levels(const DiffusionConfig& config, std::int64_t steps) {
  return noise_levels(config, trained_noise(config, true), steps, style);
}

// Of solvers over several steps, which divide by the distances between their levels.
template <LevelStyle style>
NoiseLevels distinct_levels(const DiffusionConfig& config, std::int64_t steps) {
  NoiseLevels found = levels<style>(config, steps);
  const auto end = found.sigmas.end() - 1;  // no step begins at the last one
  const auto twin = std::adjacent_find(found.sigmas.begin(), end);
  if (twin != end)
    refuse_steps(
        fmt::format("{} steps have two at the noise level {:.4g}, and the solver divides by the "
                    "distance between levels",
                    steps, *twin));
  return found;
}

template <std::vector<float> (*timesteps)(const DiffusionConfig&, std::int64_t)>
NoiseLevels times(const DiffusionConfig& config, std::int64_t steps) {
  return {.sigmas = {}, .timesteps = timesteps(config, steps)};
}

// What a sampler takes of a config; diffusers' from_config leaves out what the class does not know. What a
// user may ask of it is in the table of config/samplers.cpp.
enum Has : std::uint8_t {
  kPlain = 0,
  kKarras = 1,  // use_karras_sigmas and the like
  kSnr = 2,     // rescale_betas_zero_snr
  kFinal = 4,   // final_sigmas_type
  kClip = 8,    // clip_sample
};
struct Entry {
  std::string_view name;
  unsigned has;
  Levels* levels;
};
constexpr std::array kSamplers{
    Entry{"euler", kKarras | kSnr | kFinal, levels<LevelStyle::kSigmas>},
    Entry{"euler-ancestral", kSnr, levels<LevelStyle::kSigmas>},
    Entry{"heun", kKarras | kClip, levels<LevelStyle::kSigmas>},
    Entry{"dpm++-2m", kKarras | kSnr | kFinal, distinct_levels<LevelStyle::kDpmSolver>},
    Entry{"dpm++-2m-sde", kKarras | kSnr | kFinal, distinct_levels<LevelStyle::kDpmSolver>},
    Entry{"dpm++-2s-ancestral", kKarras | kSnr, levels<LevelStyle::kSigmas>},
    Entry{"dpm-2", kKarras, levels<LevelStyle::kSigmas>},
    Entry{"ddim", kSnr | kClip, times<whole_timesteps>},
    Entry{"ddpm", kSnr | kClip, times<whole_timesteps>},
    Entry{"pndm", kPlain, times<pndm_timesteps>},
    Entry{"lms", kKarras, distinct_levels<LevelStyle::kSigmas>},
    Entry{"unipc", kKarras | kSnr | kFinal, distinct_levels<LevelStyle::kUniPc>},
    Entry{"lcm", kSnr | kClip, times<lcm_timesteps>},
};

std::optional<Spacing> spacing_of(const SamplerOptions& options) {
  if (options.sigmas == "sgm-uniform") return Spacing::kTrailing;
  if (options.sigmas == "simple") return Spacing::kSimple;
  if (options.timestep_spacing == "linspace") return Spacing::kLinspace;
  if (options.timestep_spacing == "leading") return Spacing::kLeading;
  if (options.timestep_spacing == "trailing") return Spacing::kTrailing;
  return std::nullopt;
}

// What the class knows of the config, and the user's words over it.
DiffusionConfig fitted(DiffusionConfig config, const SamplerOptions& options, unsigned has) {
  if (options.prediction == "epsilon") config.prediction = Prediction::kEpsilon;
  if (options.prediction == "v-prediction") config.prediction = Prediction::kVelocity;
  if ((has & kClip) == 0) config.clip.reset();
  config.zero_terminal_snr = config.zero_terminal_snr && (has & kSnr) != 0;
  config.final_sigma_min = config.final_sigma_min && (has & kFinal) != 0;
  config.sigmas = sigmas_of(options, (has & kKarras) != 0 ? config.sigmas : Sigmas::kDefault);
  if (const std::optional<Spacing> spacing = spacing_of(options)) config.spacing = spacing;
  return config;
}

}  // namespace

Sigmas sigmas_of(const SamplerOptions& options, Sigmas own) {
  if (options.sigmas == "karras") return Sigmas::kKarras;
  if (options.sigmas == "exponential") return Sigmas::kExponential;
  if (options.sigmas == "beta") return Sigmas::kBeta;
  return options.sigmas == "default" ? own : Sigmas::kDefault;
}

std::optional<Schedule> schedule_of(const SamplerOptions& options, const nlohmann::json& config) {
  const config::Sampler& sampler = config::check_sampler({.name = options.name,
                                                          .sigmas = options.sigmas,
                                                          .timestep_spacing = options.timestep_spacing,
                                                          .prediction = options.prediction},
                                                         config::trained_model(config));
  if (sampler.can.flow_matching) return std::nullopt;
  const auto* entry = std::find_if(kSamplers.begin(), kSamplers.end(),
                                   [&](const Entry& e) { return e.name == options.name; });
  XDIT_ASSERT(entry != kSamplers.end());
  const DiffusionConfig read =
      fitted(read_diffusion_config(config, kConfigFile, options.name), options, entry->has);
  if (options.steps > read.training_steps)
    throw Error(ExitCode::kUsage,
                fmt::format("{} steps are more than the model's {}", options.steps, read.training_steps),
                "--steps", fmt::format("--steps {}", read.training_steps));
  return Schedule{.config = read, .steps = options.steps, .levels = entry->levels(read, options.steps)};
}

}  // namespace xdit::schedulers
