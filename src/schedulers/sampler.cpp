#include "schedulers/sampler.h"

#include <ATen/ATen.h>

namespace xdit::schedulers {

at::Tensor Sampler::begin(const at::Tensor& noise) const {
  return first_noise() == 1 ? noise : noise * first_noise();
}

at::Tensor Sampler::begin(const at::Tensor& noise, const at::Tensor& picture, std::int64_t step) const {
  const Level now = level(step);
  return picture * now.signal + noise * now.noise;
}

at::Tensor Sampler::model_input(std::int64_t /*step*/, const at::Tensor& latents) const {
  return latents;
}

at::Tensor Sampler::step(std::int64_t step, const at::Tensor& latents, const at::Tensor& output,
                         const at::Tensor& noise, History& history) const {
  const at::Tensor next = update(step, latents.to(at::kFloat), output.to(at::kFloat),
                                 noise.defined() ? noise.to(at::kFloat) : noise, history);
  ++history.evaluations;
  return next.to(output.scalar_type());
}

}  // namespace xdit::schedulers
