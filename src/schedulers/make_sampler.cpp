#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "config/samplers.h"
#include "core/error.h"
#include "schedulers/flow_match_samplers.h"
#include "schedulers/log_snr_sampler.h"
#include "schedulers/sigma_sampler.h"
#include "schedulers/timestep_sampler.h"

namespace xdit::schedulers {
namespace {

constexpr const char* kConfigFile = "scheduler/scheduler_config.json";

using MakeDiffusion = std::unique_ptr<Sampler>(const DiffusionConfig&, std::int64_t steps);

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
  MakeDiffusion* make;
};
constexpr std::array kSamplers{
    Entry{"euler", kKarras | kSnr | kFinal, make_euler},
    Entry{"euler-ancestral", kSnr, make_euler_ancestral},
    Entry{"heun", kKarras | kClip, make_heun},
    Entry{"dpm++-2m", kKarras | kSnr | kFinal, make_dpm_2m},
    Entry{"dpm++-2m-sde", kKarras | kSnr | kFinal, make_dpm_2m_sde},
    Entry{"dpm++-2s-ancestral", kKarras | kSnr, make_dpm_2s_ancestral},
    Entry{"dpm-2", kKarras, make_dpm_2},
    Entry{"ddim", kSnr | kClip, make_ddim},
    Entry{"ddpm", kSnr | kClip, make_ddpm},
    Entry{"pndm", kPlain, make_pndm},
    Entry{"lms", kKarras, make_lms},
    Entry{"unipc", kKarras | kSnr | kFinal, make_unipc},
    Entry{"lcm", kSnr | kClip, make_lcm},
};

struct Spread {
  std::string_view name;
  Sigmas sigmas;
  std::optional<Spacing> spacing;
};
constexpr std::array kSpreads{
    Spread{"karras", Sigmas::kKarras, {}},
    Spread{"exponential", Sigmas::kExponential, {}},
    Spread{"beta", Sigmas::kBeta, {}},
    Spread{"sgm-uniform", Sigmas::kDefault, Spacing::kTrailing},
    Spread{"simple", Sigmas::kDefault, Spacing::kSimple},
};

const Spread* spread_of(const SamplerOptions& options) {
  const auto* spread = std::find_if(kSpreads.begin(), kSpreads.end(),
                                    [&](const Spread& s) { return s.name == options.sigmas; });
  return spread == kSpreads.end() ? nullptr : spread;
}

// What the class knows of the config, and the user's words over it.
DiffusionConfig fitted(DiffusionConfig config, const SamplerOptions& options, const Entry& entry) {
  if (options.prediction == "epsilon") config.prediction = Prediction::kEpsilon;
  if (options.prediction == "v-prediction") config.prediction = Prediction::kVelocity;
  if ((entry.has & kKarras) == 0) config.sigmas = Sigmas::kDefault;
  if ((entry.has & kClip) == 0) config.clip.reset();
  config.zero_terminal_snr = config.zero_terminal_snr && (entry.has & kSnr) != 0;
  config.final_sigma_min = config.final_sigma_min && (entry.has & kFinal) != 0;
  if (options.timestep_spacing == "linspace") config.spacing = Spacing::kLinspace;
  if (options.timestep_spacing == "leading") config.spacing = Spacing::kLeading;
  if (options.timestep_spacing == "trailing") config.spacing = Spacing::kTrailing;
  if (const Spread* spread = spread_of(options)) {
    config.sigmas = spread->sigmas;
    if (spread->spacing) config.spacing = spread->spacing;
  }
  return config;
}

std::unique_ptr<Sampler> make_flow(const SamplerOptions& options, const nlohmann::json& json) {
  FlowMatchConfig config = read_flow_match_config(json, kConfigFile);
  if (options.name == "flow-match-heun")
    return make_flow_match_heun(flow_match_heun_schedule(config, options.steps, options.shift));
  if (const Spread* spread = spread_of(options)) config.sigmas = spread->sigmas;
  return make_flow_match_euler(flow_match_schedule(config, options.steps, options.image_tokens, options.shift,
                                                   options.sigmas == "simple"));
}

}  // namespace

std::unique_ptr<Sampler> make_sampler(const SamplerOptions& options, const nlohmann::json& config) {
  const config::Sampler& sampler = config::check_sampler({.name = options.name,
                                                          .sigmas = options.sigmas,
                                                          .timestep_spacing = options.timestep_spacing,
                                                          .prediction = options.prediction},
                                                         config::trained_model(config));
  if (sampler.can.flow_matching) return make_flow(options, config);
  const auto* entry = std::find_if(kSamplers.begin(), kSamplers.end(),
                                   [&](const Entry& e) { return e.name == options.name; });
  XDIT_ASSERT(entry != kSamplers.end());
  const DiffusionConfig diffusion =
      fitted(read_diffusion_config(config, kConfigFile, options.name), options, *entry);
  if (options.steps > diffusion.training_steps)
    throw Error(ExitCode::kUsage,
                fmt::format("{} steps are more than the model's {}", options.steps, diffusion.training_steps),
                "--steps");
  return entry->make(diffusion, options.steps);
}

}  // namespace xdit::schedulers
