#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace xdit::config {

/// Every spacing of noise levels; "default" is the model's own.
inline constexpr std::string_view kAllSigmas = "default|karras|exponential|beta|sgm-uniform|simple";

/// What a scheduler can do.
struct Ability {
  bool flow_matching = false;            ///< serves models of flow matching, and no others
  std::string_view sigmas = kAllSigmas;  ///< of which it takes these
  bool predicted_pictures = true;        ///< serves models that predict the picture, too
  std::int64_t order = 1;                ///< evaluations of the network in a step
  std::int64_t more = 0;                 ///< and in several steps together
};

/// A scheduler and how others spell it; case, spaces, '-' and '_' do not matter.
struct Sampler {
  std::string_view name;       ///< ours: "flow-match-euler"
  std::string_view diffusers;  ///< class, "FlowMatchEulerDiscreteScheduler"
  std::string_view a1111;      ///< "Euler", or ""
  std::string_view comfyui;    ///< "euler", or ""
  Ability can{};
  /// Evaluations of the network in a run.
  [[nodiscard]] std::int64_t evaluations(std::int64_t steps) const {
    return steps == 1 ? 1 : can.order * steps + can.more;
  }
};
[[nodiscard]] std::span<const Sampler> samplers();
/// The row of our name, or nullptr.
[[nodiscard]] const Sampler* sampler_named(std::string_view name);

/// Our names of a scheduler and of the noise levels that its spelling asks for.
struct SpelledSampler {
  std::string_view name;
  std::string_view sigmas;  ///< "karras", or "" where it does not say
};
/// A scheduler in any of these spellings, perhaps with noise levels behind it: "DPM++ 2M Karras".
[[nodiscard]] std::optional<SpelledSampler> find_sampler(std::string_view spelling);
/// Our name of a spacing: A1111's "Automatic" and "Uniform" and ComfyUI's "normal" are "default".
[[nodiscard]] std::optional<std::string_view> find_sigmas(std::string_view spelling);
/// A1111's spelling of ours, as its pictures hold it: "SGM Uniform".
[[nodiscard]] std::string_view a1111_sigmas(std::string_view name);

/// For models of flow matching, the scheduler that others call by the same name ("euler":
/// "flow-match-euler").
[[nodiscard]] std::string_view sampler_for(std::string_view name, bool flow_matching);

/// What a scheduler_config.json says of the model that it came with.
struct TrainedModel {
  bool flow_matching = false;
  bool predicts_pictures = false;  ///< not their noise, nor v
};
[[nodiscard]] TrainedModel trained_model(const nlohmann::json& scheduler_config);

/// What a user says of sampling, by our names.
struct SamplerChoice {
  std::string_view name;
  std::string_view sigmas = "default";
  std::string_view timestep_spacing = "auto";
  std::string_view prediction = "auto";
};
/// The row of a choice; Error(kUsage) where there is none, or where it does not fit the model.
const Sampler& check_sampler(const SamplerChoice& choice, const TrainedModel& model);

}  // namespace xdit::config
