#include "schedulers/sigma_sampler.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace xdit::schedulers {

SigmaSampler::SigmaSampler(const DiffusionConfig& config, NoiseLevels levels)
    : Sampler(std::move(levels.timesteps)),
      prediction_(config.prediction),
      clip_(config.clip),
      sigmas_(std::move(levels.sigmas)),
      first_noise_(*std::max_element(sigmas_.begin(), sigmas_.end())) {
  // diffusers: the first timestep of leading is not the last trained one, so latents hold a picture.
  if (config.spacing == Spacing::kLeading) first_noise_ = std::sqrt(first_noise_ * first_noise_ + 1);
}

at::Tensor SigmaSampler::model_input(std::int64_t step, const at::Tensor& latents) const {
  return latents / std::sqrt(sigma(step) * sigma(step) + 1);
}

at::Tensor SigmaSampler::picture(std::int64_t step, const at::Tensor& x, const at::Tensor& output) const {
  const at::Tensor predicted = denoised(prediction_, x, output, sigma(step));
  return clip_ ? predicted.clamp(-*clip_, *clip_) : predicted;
}

at::Tensor SigmaSampler::slope(std::int64_t step, const at::Tensor& x, const at::Tensor& output) const {
  return (x - picture(step, x, output)) / sigma(step);
}

}  // namespace xdit::schedulers
