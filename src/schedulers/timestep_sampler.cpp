#include "schedulers/timestep_sampler.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "core/error.h"

namespace xdit::schedulers {

TimestepSampler::TimestepSampler(const DiffusionConfig& config, const TrainedNoise& trained,
                                 std::vector<float> timesteps)
    : Sampler(std::move(timesteps)), config_(config), alphas_(trained.alphas) {}

std::int64_t TimestepSampler::timestep(std::int64_t step) const {
  return static_cast<std::int64_t>(timesteps()[static_cast<std::size_t>(step)]);
}

float TimestepSampler::alpha(std::int64_t timestep) const {
  if (timestep < 0) return config_.final_alpha_one ? 1 : alphas_.front();
  return alphas_.at(static_cast<std::size_t>(timestep));
}

at::Tensor TimestepSampler::picture(const at::Tensor& x, const at::Tensor& output, float alpha) const {
  const at::Tensor predicted =
      picture_in(config_.prediction, x, output, {std::sqrt(alpha), std::sqrt(1 - alpha)});
  return config_.clip ? predicted.clamp(-*config_.clip, *config_.clip) : predicted;
}

Sampler::Level TimestepSampler::level(std::int64_t step) const {
  const float now = alpha(timestep(step));
  return {std::sqrt(now), std::sqrt(1 - now)};
}

std::vector<float> whole_timesteps(const DiffusionConfig& config, std::int64_t steps) {
  const std::vector<double> spaced =
      spaced_timesteps(config, config.spacing.value_or(Spacing::kLeading), steps, steps);
  std::vector<float> whole;
  whole.reserve(spaced.size());
  for (const double timestep : spaced) whole.push_back(static_cast<float>(std::nearbyint(timestep)));
  if (!whole.empty() && whole.front() >= static_cast<float>(config.training_steps))
    throw Error(ExitCode::kUsage,
                fmt::format("{} steps begin at timestep {:.0f}, and the model was trained on 0 to {}", steps,
                            whole.front(), config.training_steps - 1),
                "--steps", "fewer, or --set sampling.timestep_spacing=trailing");
  return whole;
}

}  // namespace xdit::schedulers
