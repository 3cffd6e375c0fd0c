#include "parallel/loop.h"

#include <ATen/ATen.h>

namespace xdit::parallel {

at::Tensor guided(const at::Tensor& positive, const at::Tensor& negative, double scale) {
  return negative + (positive - negative) * scale;
}

at::Tensor LocalGuide::predict(models::Denoiser& denoiser, const Guidance& guidance,
                               const at::Tensor& latents, std::int64_t step) {
  at::Tensor positive = denoiser.predict(*guidance.positive, latents, step);
  if (guidance.scale <= 1) return positive;
  return guided(positive, denoiser.predict(*guidance.negative, latents, step), guidance.scale);
}

at::Tensor SerialLoop::run(models::Denoiser& denoiser, const schedulers::Sampler& sampler, Guide& guide,
                           const Guidance& guidance, const at::Tensor& noise, const OnStep& on_step) {
  at::Tensor latents = noise;
  schedulers::History history;
  const auto steps = static_cast<std::int64_t>(sampler.timesteps().size());
  for (std::int64_t i = 0; i < steps; ++i) {
    latents = sampler.step(i, latents, guide.predict(denoiser, guidance, latents, i), history);
    on_step(i + 1, latents);
  }
  return latents;
}

}  // namespace xdit::parallel
