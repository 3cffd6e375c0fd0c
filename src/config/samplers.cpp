#include "config/samplers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "config/values.h"
#include "core/error.h"
#include "core/json.h"
#include "core/nearest.h"

namespace xdit::config {
namespace {

constexpr std::string_view kSpacings = "default|sgm-uniform|simple";  // among the trained timesteps
constexpr std::string_view kNone = "default";

constexpr Ability kTwice{.order = 2, .more = -1};  // but for the last step
constexpr Ability kTwiceWithoutPictures{.predicted_pictures = false, .order = 2, .more = -1};

constexpr std::array kSamplers{
    Sampler{"flow-match-euler", "FlowMatchEulerDiscreteScheduler", "", "", {.flow_matching = true}},
    Sampler{"flow-match-heun",
            "FlowMatchHeunDiscreteScheduler",
            "",
            "",
            {.flow_matching = true, .sigmas = kNone, .order = 2, .more = -1}},
    Sampler{"euler", "EulerDiscreteScheduler", "Euler", "euler"},
    Sampler{"euler-ancestral",
            "EulerAncestralDiscreteScheduler",
            "Euler a",
            "euler_ancestral",
            {.predicted_pictures = false}},
    Sampler{"heun", "HeunDiscreteScheduler", "Heun", "heun", kTwice},
    Sampler{"dpm++-2m", "DPMSolverMultistepScheduler", "DPM++ 2M", "dpmpp_2m"},
    Sampler{"dpm++-2m-sde", "", "DPM++ 2M SDE", "dpmpp_2m_sde"},
    Sampler{"dpm++-2s-ancestral", "", "DPM++ 2S a", "dpmpp_2s_ancestral", kTwiceWithoutPictures},
    Sampler{"dpm-2", "KDPM2DiscreteScheduler", "DPM2", "dpm_2", kTwiceWithoutPictures},
    Sampler{"ddim", "DDIMScheduler", "DDIM", "ddim", {.sigmas = kSpacings}},
    Sampler{"ddpm", "DDPMScheduler", "", "ddpm", {.sigmas = kSpacings}},
    Sampler{
        "pndm", "PNDMScheduler", "PLMS", "", {.sigmas = kSpacings, .predicted_pictures = false, .more = 1}},
    Sampler{"lms", "LMSDiscreteScheduler", "LMS", "lms"},
    Sampler{"unipc", "UniPCMultistepScheduler", "UniPC", "uni_pc"},
    Sampler{"lcm", "LCMScheduler", "LCM", "lcm", {.sigmas = kNone}},
};

// Further spellings, and ours.
using Alias = std::pair<std::string_view, std::string_view>;
constexpr std::array kSamplerAliases{Alias{"uni_pc_bh2", "unipc"}, Alias{"dpmpp_2m_sde_gpu", "dpm++-2m-sde"}};
constexpr std::array kSigmasAliases{Alias{"automatic", "default"}, Alias{"uniform", "default"},
                                    Alias{"normal", "default"}};
// Ours, and what A1111 shows.
constexpr std::array kA1111Sigmas{Alias{"default", "Automatic"},       Alias{"karras", "Karras"},
                                  Alias{"exponential", "Exponential"}, Alias{"beta", "Beta"},
                                  Alias{"sgm-uniform", "SGM Uniform"}, Alias{"simple", "Simple"}};

std::string folded(std::string_view text) {
  std::string letters;
  for (const unsigned char c : text)
    if (c != ' ' && c != '-' && c != '_') letters += static_cast<char>(std::tolower(c));
  return letters;
}

bool takes(const Sampler& sampler, std::string_view sigmas) {
  const std::vector<std::string> all = split(sampler.can.sigmas, '|');
  return std::find(all.begin(), all.end(), sigmas) != all.end();
}

template <class Keep>
std::string names_of(Keep keep) {
  std::vector<std::string_view> names;
  for (const Sampler& sampler : kSamplers)
    if (keep(sampler)) names.push_back(sampler.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

void check_sigmas(const Sampler& sampler, const SamplerChoice& choice) {
  if (!takes(sampler, choice.sigmas))
    throw Error(ExitCode::kUsage, fmt::format("{} has no {} noise levels", sampler.name, choice.sigmas),
                "--sigmas", "default, or --scheduler " + names_of([&](const Sampler& other) {
                              return other.can.flow_matching == sampler.can.flow_matching &&
                                     takes(other, choice.sigmas);
                            }));
}

// Two spacings of the steps' times.
void check_spacing(const SamplerChoice& choice) {
  const bool trailing = choice.sigmas == "sgm-uniform";
  if (choice.timestep_spacing == "auto" || (!trailing && choice.sigmas != "simple")) return;
  if (trailing && choice.timestep_spacing == "trailing") return;
  throw Error(
      ExitCode::kUsage,
      fmt::format("sampling.sigmas={} spreads the steps' times itself, and sampling.timestep_spacing={} "
                  "would do so otherwise",
                  choice.sigmas, choice.timestep_spacing),
      "sampling.timestep_spacing",
      fmt::format("--sigmas default, or --set sampling.timestep_spacing={}", trailing ? "trailing" : "auto"));
}

}  // namespace

std::span<const Sampler> samplers() {
  return kSamplers;
}

const Sampler* sampler_named(std::string_view name) {
  const auto* found = std::find_if(kSamplers.begin(), kSamplers.end(),
                                   [&](const Sampler& sampler) { return sampler.name == name; });
  return found == kSamplers.end() ? nullptr : found;
}

std::optional<SpelledSampler> find_sampler(std::string_view spelling) {
  const std::string wanted = folded(spelling);
  const auto behind = [&](std::string_view known) -> std::optional<std::string_view> {
    const std::string start = folded(known);
    if (start.empty() || !wanted.starts_with(start)) return std::nullopt;
    return wanted.size() == start.size() ? "" : find_sigmas(std::string_view(wanted).substr(start.size()));
  };
  for (const Sampler& sampler : kSamplers)
    for (const std::string_view known : {sampler.name, sampler.diffusers, sampler.a1111, sampler.comfyui})
      if (const auto sigmas = behind(known)) return SpelledSampler{sampler.name, *sigmas};
  for (const auto& [known, name] : kSamplerAliases)
    if (const auto sigmas = behind(known)) return SpelledSampler{name, *sigmas};
  return std::nullopt;
}

std::optional<std::string_view> find_sigmas(std::string_view spelling) {
  const std::string wanted = folded(spelling);
  for (std::size_t start = 0; start < kAllSigmas.size();) {
    const std::string_view name =
        kAllSigmas.substr(start, std::min(kAllSigmas.find('|', start), kAllSigmas.size()) - start);
    if (folded(name) == wanted) return name;
    start += name.size() + 1;
  }
  for (const auto& [known, name] : kSigmasAliases)
    if (known == wanted) return name;
  return std::nullopt;
}

std::string_view a1111_sigmas(std::string_view name) {
  const auto* found = std::find_if(kA1111Sigmas.begin(), kA1111Sigmas.end(),
                                   [&](const Alias& known) { return known.first == name; });
  return found == kA1111Sigmas.end() ? name : found->second;
}

std::string_view sampler_for(std::string_view name, bool flow_matching) {
  const Sampler* other = sampler_named("flow-match-" + std::string(name));
  return flow_matching && other != nullptr ? other->name : name;
}

TrainedModel trained_model(const nlohmann::json& scheduler_config) {
  const std::string prediction = text_at(scheduler_config, "prediction_type");
  return {.flow_matching = scheduler_config.contains("_class_name")
                               ? text_at(scheduler_config, "_class_name").starts_with("FlowMatch")
                               : scheduler_config.contains("shift"),
          .predicts_pictures = prediction == "sample" || prediction == "original_sample"};
}

const Sampler& check_sampler(const SamplerChoice& choice, const TrainedModel& model) {
  const Sampler* sampler = sampler_named(choice.name);
  if (sampler == nullptr) {
    std::vector<std::string> names;
    names.reserve(kSamplers.size());
    for (const Sampler& known : kSamplers) names.emplace_back(known.name);
    throw Error(ExitCode::kUsage, fmt::format("no scheduler '{}'", choice.name), "--scheduler",
                suggest(choice.name, names));
  }
  if (sampler->can.flow_matching != model.flow_matching)
    throw Error(ExitCode::kUsage,
                fmt::format("{} does not fit a model of {}", sampler->name,
                            model.flow_matching ? "flow matching" : "noise"),
                "--scheduler", "one of " + names_of([&](const Sampler& other) {
                                 return other.can.flow_matching == model.flow_matching;
                               }));
  if (model.flow_matching && choice.timestep_spacing != "auto")
    throw Error(ExitCode::kUsage, "models of flow matching have one spacing of timesteps",
                "sampling.timestep_spacing", "auto, or --sigmas");
  if (model.flow_matching && choice.prediction != "auto")
    throw Error(ExitCode::kUsage, "models of flow matching predict one thing", "sampling.prediction", "auto");
  if (model.predicts_pictures && choice.prediction == "auto" && !sampler->can.predicted_pictures)
    throw Error(ExitCode::kUsage, fmt::format("{} needs a model that predicts noise or v", sampler->name),
                "--scheduler", "one of " + names_of([](const Sampler& other) {
                                 return other.can.predicted_pictures && !other.can.flow_matching;
                               }));
  check_sigmas(*sampler, choice);
  check_spacing(choice);
  return *sampler;
}

}  // namespace xdit::config
