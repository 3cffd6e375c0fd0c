#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "core/nearest.h"
#include "schedulers/flow_match_samplers.h"
#include "schedulers/sigma_sampler.h"
#include "schedulers/timestep_sampler.h"

namespace xdit::schedulers {
namespace {

constexpr const char* kConfigFile = "scheduler/scheduler_config.json";

using MakeDiffusion = std::unique_ptr<Sampler>(const DiffusionConfig&, std::int64_t steps);

// What a model must be for a sampler, and how far the user may move its noise levels.
enum class Takes : std::uint8_t {
  kFlow,       // flow matching
  kSigmas,     // models of noise; levels at any sigma
  kTimesteps,  // models of noise; levels of whole timesteps alone
};
struct Entry {
  std::string_view name;
  Takes takes;
  MakeDiffusion* make = nullptr;
};
constexpr std::array kSamplers{
    Entry{"flow-match-euler", Takes::kFlow},
    Entry{"euler", Takes::kSigmas, make_euler},
    Entry{"euler-ancestral", Takes::kSigmas, make_euler_ancestral},
    Entry{"ddim", Takes::kTimesteps, make_ddim},
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

// The user's words over the config's.
void respace(DiffusionConfig& config, const SamplerOptions& options, const Entry& entry) {
  if (options.timestep_spacing == "linspace") config.spacing = Spacing::kLinspace;
  if (options.timestep_spacing == "leading") config.spacing = Spacing::kLeading;
  if (options.timestep_spacing == "trailing") config.spacing = Spacing::kTrailing;
  if (options.sigmas == "default") return;
  const auto* spread = std::find_if(kSpreads.begin(), kSpreads.end(),
                                    [&](const Spread& s) { return s.name == options.sigmas; });
  XDIT_ASSERT(spread != kSpreads.end());
  if (entry.takes == Takes::kTimesteps && spread->sigmas != Sigmas::kDefault)
    throw Error(ExitCode::kUsage, fmt::format("{} has no {} noise levels", entry.name, options.sigmas),
                "--sigmas", "default, sgm-uniform or simple; or --scheduler " + names_of([](const Entry& e) {
                              return e.takes == Takes::kSigmas;
                            }));
  config.sigmas = spread->sigmas;
  if (spread->spacing) config.spacing = spread->spacing;
}

std::unique_ptr<Sampler> make_flow(const SamplerOptions& options, const nlohmann::json& config) {
  if (options.sigmas != "default" || options.timestep_spacing != "auto")
    throw Error(ExitCode::kUsage, fmt::format("{} has one spacing", options.name), "--sigmas", "default");
  return make_flow_match_euler(flow_match_schedule(read_flow_match_config(config, kConfigFile), options.steps,
                                                   options.image_tokens, options.shift));
}

}  // namespace

std::unique_ptr<Sampler> make_sampler(const SamplerOptions& options, const nlohmann::json& config) {
  std::vector<std::string> names;
  for (const Entry& entry : kSamplers) names.emplace_back(entry.name);
  const auto* entry = std::find_if(kSamplers.begin(), kSamplers.end(),
                                   [&](const Entry& e) { return e.name == options.name; });
  if (entry == kSamplers.end())
    throw Error(ExitCode::kUsage, fmt::format("no scheduler '{}'", options.name), "--scheduler",
                suggest(options.name, names));
  const bool flow = is_flow(config);
  if ((entry->takes == Takes::kFlow) != flow)
    throw Error(ExitCode::kUsage,
                fmt::format("{} does not fit a model of {}", entry->name, flow ? "flow matching" : "noise"),
                "--scheduler",
                "one of " + names_of([&](const Entry& e) { return (e.takes == Takes::kFlow) == flow; }));
  if (flow) return make_flow(options, config);
  DiffusionConfig diffusion = read_diffusion_config(config, kConfigFile);
  if (options.steps > diffusion.training_steps)
    throw Error(ExitCode::kUsage,
                fmt::format("{} steps are more than the model's {}", options.steps, diffusion.training_steps),
                "--steps");
  respace(diffusion, options, *entry);
  return entry->make(diffusion, options.steps);
}

}  // namespace xdit::schedulers
