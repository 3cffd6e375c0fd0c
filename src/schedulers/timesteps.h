#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "schedulers/diffusion_config.h"

/// Times of samplers over trained timesteps. Error(kUsage) where there are too many or too few steps.
namespace xdit::schedulers {

inline constexpr std::int64_t kPndmWarmSteps = 3;  ///< of Runge-Kutta, four evaluations each

/// Whole timesteps of `steps` steps; leading unless the config says otherwise.
[[nodiscard]] std::vector<float> whole_timesteps(const DiffusionConfig& config, std::int64_t steps);
/// The same with the evaluations that pndm warms up with, as diffusers lists them.
[[nodiscard]] std::vector<float> pndm_timesteps(const DiffusionConfig& config, std::int64_t steps);
/// Evenly among those of lcm's distillation, from the last one.
[[nodiscard]] std::vector<float> lcm_timesteps(const DiffusionConfig& config, std::int64_t steps);

/// That there are more of them than the model's times and the spacing hold.
[[noreturn]] void refuse_steps(const std::string& what);

}  // namespace xdit::schedulers
