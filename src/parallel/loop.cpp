#include "parallel/loop.h"

namespace xdit::parallel {

at::Tensor SerialLoop::run(models::Denoiser& denoiser, const schedulers::Sampler& sampler,
                           const Guidance& guidance, const at::Tensor& noise, const OnStep& on_step) {
  at::Tensor latents = noise;
  schedulers::History history;
  const auto steps = static_cast<std::int64_t>(sampler.timesteps().size());
  for (std::int64_t i = 0; i < steps; ++i) {
    at::Tensor output = denoiser.predict(*guidance.positive, latents, i);
    if (guidance.negative != nullptr) {
      const at::Tensor negative = denoiser.predict(*guidance.negative, latents, i);
      output = negative + (output - negative) * guidance.scale;
    }
    latents = sampler.step(i, latents, output, history);
    on_step(i + 1, latents);
  }
  return latents;
}

}  // namespace xdit::parallel
