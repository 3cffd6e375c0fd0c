#include "schedulers/log_snr_sampler.h"

#include <ATen/ATen.h>

#include <cmath>

namespace xdit::schedulers {

LogSnrSampler::LogSnrSampler(const DiffusionConfig& config, NoiseLevels levels)
    : Sampler(std::move(levels.timesteps)),
      prediction_(config.prediction),
      sigmas_(std::move(levels.sigmas)) {}

Mixture LogSnrSampler::mixture(std::int64_t step) const {
  const float sigma = sigma_over_alpha(step);
  const float alpha = 1 / std::sqrt(sigma * sigma + 1);
  return {alpha, sigma * alpha};
}

float LogSnrSampler::lambda(std::int64_t step) const {
  const auto [alpha, sigma] = mixture(step);
  return std::log(alpha) - std::log(sigma);
}

void LogSnrSampler::remember(const at::Tensor& picture, std::int64_t count, History& history) {
  history.outputs.push_back(picture);
  if (std::ssize(history.outputs) > count) history.outputs.erase(history.outputs.begin());
}

Sampler::Level LogSnrSampler::level(std::int64_t step) const {
  const auto [alpha, sigma] = mixture(step);
  return {alpha, sigma};
}

}  // namespace xdit::schedulers
