#include "schedulers/timestep_sampler.h"

#include <ATen/ATen.h>

#include <cmath>

namespace xdit::schedulers {

TimestepSampler::TimestepSampler(const Schedule& schedule)
    : Sampler(schedule.levels.timesteps),
      config_(schedule.config),
      alphas_(trained_noise(schedule.config, false).alphas) {}

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

}  // namespace xdit::schedulers
