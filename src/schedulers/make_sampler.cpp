#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "core/nearest.h"
#include "schedulers/flow_match_samplers.h"
#include "schedulers/log_snr_sampler.h"
#include "schedulers/sigma_sampler.h"
#include "schedulers/timestep_sampler.h"

namespace xdit::schedulers {
namespace {

constexpr const char* kConfigFile = "scheduler/scheduler_config.json";

using MakeDiffusion = std::unique_ptr<Sampler>(const DiffusionConfig&, std::int64_t steps);

// What a sampler takes of a config; diffusers' from_config leaves out what the class does not know. A user
// may ask kSigmas of every sampler that steps in sigma, whatever its class's config knows.
enum Has : std::uint8_t {
  kTimesteps = 0,
  kSigmas = 1,  // levels at any sigma
  kKarras = 2,  // use_karras_sigmas and the like
  kSample = 4,  // a model that predicts the picture
  kSnr = 8,     // rescale_betas_zero_snr
  kFinal = 16,  // final_sigmas_type
  kClip = 32,   // clip_sample
  kFlow = 64,   // a model of flow matching, and none else
};
struct Entry {
  std::string_view name;
  unsigned has;
  MakeDiffusion* make = nullptr;
};
constexpr std::array kSamplers{
    Entry{"flow-match-euler", kFlow | kSigmas},
    Entry{"flow-match-heun", kFlow},
    Entry{"euler", kSigmas | kKarras | kSample | kSnr | kFinal, make_euler},
    Entry{"euler-ancestral", kSigmas | kSnr, make_euler_ancestral},
    Entry{"heun", kSigmas | kKarras | kSample | kClip, make_heun},
    Entry{"dpm++-2m", kSigmas | kKarras | kSample | kSnr | kFinal, make_dpm_2m},
    Entry{"dpm++-2m-sde", kSigmas | kKarras | kSample | kSnr | kFinal, make_dpm_2m_sde},
    Entry{"dpm++-2s-ancestral", kSigmas | kKarras | kSnr, make_dpm_2s_ancestral},
    Entry{"dpm-2", kSigmas | kKarras, make_dpm_2},
    Entry{"ddim", kTimesteps | kSample | kSnr | kClip, make_ddim},
    Entry{"ddpm", kTimesteps | kSample | kSnr | kClip, make_ddpm},
    Entry{"pndm", kTimesteps, make_pndm},
    Entry{"lms", kSigmas | kKarras | kSample, make_lms},
    Entry{"unipc", kSigmas | kKarras | kSample | kSnr | kFinal, make_unipc},
    Entry{"lcm", kTimesteps | kSample | kSnr | kClip, make_lcm},
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

template <class Keep>
std::string names_of(Keep keep) {
  std::vector<std::string_view> names;
  for (const Entry& entry : kSamplers)
    if (keep(entry)) names.push_back(entry.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

bool is_flow(const nlohmann::json& config) {
  return config.contains("_class_name") ? config.at("_class_name").get<std::string>().starts_with("FlowMatch")
                                        : config.contains("shift");
}

const Spread* spread_of(const SamplerOptions& options, const Entry& entry) {
  const auto* spread = std::find_if(kSpreads.begin(), kSpreads.end(),
                                    [&](const Spread& s) { return s.name == options.sigmas; });
  if (spread == kSpreads.end()) return nullptr;
  const bool flow = (entry.has & kFlow) != 0;
  if ((entry.has & kSigmas) == 0 && (flow || spread->sigmas != Sigmas::kDefault))
    throw Error(ExitCode::kUsage, fmt::format("{} has no {} noise levels", entry.name, options.sigmas),
                "--sigmas", "default, or --scheduler " + names_of([&](const Entry& e) {
                              return (e.has & kSigmas) != 0 && ((e.has & kFlow) != 0) == flow;
                            }));
  return spread;
}

// What the class knows of the config, and the user's words over it.
DiffusionConfig fitted(DiffusionConfig config, const SamplerOptions& options, const Entry& entry) {
  if (options.prediction == "epsilon") config.prediction = Prediction::kEpsilon;
  if (options.prediction == "v-prediction") config.prediction = Prediction::kVelocity;
  if ((entry.has & kSample) == 0 && config.prediction == Prediction::kSample)
    throw Error(ExitCode::kUsage, fmt::format("{} needs a model that predicts noise or v", entry.name),
                "--scheduler", "one of " + names_of([](const Entry& e) { return (e.has & kSample) != 0; }));
  if ((entry.has & kKarras) == 0) config.sigmas = Sigmas::kDefault;
  if ((entry.has & kClip) == 0) config.clip.reset();
  config.zero_terminal_snr = config.zero_terminal_snr && (entry.has & kSnr) != 0;
  config.final_sigma_min = config.final_sigma_min && (entry.has & kFinal) != 0;
  if (options.timestep_spacing == "linspace") config.spacing = Spacing::kLinspace;
  if (options.timestep_spacing == "leading") config.spacing = Spacing::kLeading;
  if (options.timestep_spacing == "trailing") config.spacing = Spacing::kTrailing;
  if (const Spread* spread = spread_of(options, entry)) {
    config.sigmas = spread->sigmas;
    if (spread->spacing) config.spacing = spread->spacing;
  }
  return config;
}

std::unique_ptr<Sampler> make_flow(const SamplerOptions& options, const Entry& entry,
                                   const nlohmann::json& json) {
  if (options.timestep_spacing != "auto")
    throw Error(ExitCode::kUsage, "models of flow matching have one spacing of timesteps",
                "sampling.timestep_spacing", "auto, or --sigmas");
  if (options.prediction != "auto")
    throw Error(ExitCode::kUsage, "models of flow matching predict one thing", "sampling.prediction", "auto");
  FlowMatchConfig config = read_flow_match_config(json, kConfigFile);
  const Spread* spread = spread_of(options, entry);
  if (entry.name == "flow-match-heun")
    return make_flow_match_heun(flow_match_heun_schedule(config, options.steps, options.shift));
  if (spread != nullptr) config.sigmas = spread->sigmas;
  return make_flow_match_euler(flow_match_schedule(config, options.steps, options.image_tokens, options.shift,
                                                   options.sigmas == "simple"));
}

}  // namespace

std::unique_ptr<Sampler> make_sampler(const SamplerOptions& options, const nlohmann::json& config) {
  std::vector<std::string> names;
  names.reserve(kSamplers.size());
  for (const Entry& entry : kSamplers) names.emplace_back(entry.name);
  const auto* entry = std::find_if(kSamplers.begin(), kSamplers.end(),
                                   [&](const Entry& e) { return e.name == options.name; });
  if (entry == kSamplers.end())
    throw Error(ExitCode::kUsage, fmt::format("no scheduler '{}'", options.name), "--scheduler",
                suggest(options.name, names));
  const bool flow = is_flow(config);
  const auto fits = [&](const Entry& e) { return ((e.has & kFlow) != 0) == flow; };
  if (!fits(*entry))
    throw Error(ExitCode::kUsage,
                fmt::format("{} does not fit a model of {}", entry->name, flow ? "flow matching" : "noise"),
                "--scheduler", "one of " + names_of(fits));
  if (flow) return make_flow(options, *entry, config);
  const DiffusionConfig diffusion = fitted(read_diffusion_config(config, kConfigFile), options, *entry);
  if (options.steps > diffusion.training_steps)
    throw Error(ExitCode::kUsage,
                fmt::format("{} steps are more than the model's {}", options.steps, diffusion.training_steps),
                "--steps");
  return entry->make(diffusion, options.steps);
}

}  // namespace xdit::schedulers
