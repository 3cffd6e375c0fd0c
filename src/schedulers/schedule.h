#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "schedulers/noise_levels.h"

namespace xdit::schedulers {

struct SamplerOptions {
  std::string name;                       ///< "euler"
  std::string sigmas = "default";         ///< spacing of the noise levels; default: the model's
  std::string timestep_spacing = "auto";  ///< auto: the model's
  std::string prediction = "auto";        ///< likewise
  std::int64_t steps = 1;
  std::int64_t image_tokens = 0;  ///< for a shift by size
  std::optional<double> shift{};  ///< replaces the config's
};

/// Where a sampler of a model that predicts noise, v or pictures goes.
struct Schedule {
  DiffusionConfig config;  ///< what the sampler's class knows of it, and the options over it
  std::int64_t steps = 1;
  NoiseLevels levels;  ///< of the steps; a sampler over trained timesteps has its times alone
};
/// Under the model's scheduler_config.json, whatever class that names, as diffusers' from_config; nothing for
/// flow matching. Error(kUsage) for a sampler that does not exist or does not fit the model, the spacing or
/// the number of steps, Error(kModel) at what no sampler here has.
[[nodiscard]] std::optional<Schedule> schedule_of(const SamplerOptions& options,
                                                  const nlohmann::json& config);

/// How the options spread the levels; `own` where they do not say.
[[nodiscard]] Sigmas sigmas_of(const SamplerOptions& options, Sigmas own);

/// Where make_sampler finds a model's scheduler_config.json, for errors.
inline constexpr const char* kConfigFile = "scheduler/scheduler_config.json";

}  // namespace xdit::schedulers
