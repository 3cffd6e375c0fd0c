#include "schedulers/timesteps.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "schedulers/noise_levels.h"

namespace xdit::schedulers {
namespace {

// Each of the first steps at its ends and twice in its middle.
std::vector<float> with_runge_kutta(const std::vector<float>& steps, std::int64_t stride) {
  std::vector<float> all;
  const std::int64_t half = stride / 2;
  for (std::size_t i = 0; i < kPndmWarmSteps; ++i) {
    const float middle = steps[i + 1] + static_cast<float>(half);
    all.insert(all.end(), {steps[i], middle, middle, steps[i + 1]});
  }
  all.insert(all.end(), steps.begin() + kPndmWarmSteps, steps.end());
  return all;
}

}  // namespace

void refuse_steps(const std::string& what) {
  throw Error(ExitCode::kUsage, what, "--steps", "fewer, or --set sampling.timestep_spacing=trailing");
}

std::vector<float> whole_timesteps(const DiffusionConfig& config, std::int64_t steps) {
  const std::vector<double> spaced =
      spaced_timesteps(config, config.spacing.value_or(Spacing::kLeading), steps, steps);
  std::vector<float> whole;
  whole.reserve(spaced.size());
  for (const double timestep : spaced) whole.push_back(static_cast<float>(std::nearbyint(timestep)));
  if (!whole.empty() && whole.front() >= static_cast<float>(config.training_steps))
    refuse_steps(fmt::format("{} steps begin at timestep {:.0f}, and the model was trained on 0 to {}", steps,
                             whole.front(), config.training_steps - 1));
  return whole;
}

std::vector<float> pndm_timesteps(const DiffusionConfig& config, std::int64_t steps) {
  std::vector<float> timesteps = whole_timesteps(config, steps);
  if (!config.skip_runge_kutta) {
    if (steps <= kPndmWarmSteps) throw Error(ExitCode::kUsage, "pndm takes at least 4 steps", "--steps", "4");
    return with_runge_kutta(timesteps, config.training_steps / steps);
  }
  if (timesteps.size() > 1) timesteps.insert(timesteps.begin() + 1, timesteps[1]);
  return timesteps;
}

std::vector<float> lcm_timesteps(const DiffusionConfig& config, std::int64_t steps) {
  if (steps > config.original_steps)
    throw Error(ExitCode::kUsage,
                fmt::format("{} steps are more than the {} that lcm's model was distilled for", steps,
                            config.original_steps),
                "--steps", "4, or another --scheduler");
  const std::int64_t stride = config.training_steps / config.original_steps;
  std::vector<float> timesteps;
  timesteps.reserve(static_cast<std::size_t>(steps));
  for (std::int64_t i = 0; i < steps; ++i) {
    const double skipped =
        static_cast<double>(i) * (static_cast<double>(config.original_steps) / static_cast<double>(steps));
    const std::int64_t index = config.original_steps - static_cast<std::int64_t>(std::floor(skipped));
    timesteps.push_back(static_cast<float>(index * stride - 1));
  }
  return timesteps;
}

}  // namespace xdit::schedulers
