#include <ATen/ATen.h>

#include <cmath>

#include "schedulers/timestep_sampler.h"

namespace xdit::schedulers {
namespace {

constexpr float kDataVariance = 0.25F;  // sigma_data 0.5

// Latent consistency (Luo et al. 2023, section 4.3): the predicted picture, noised anew to the next level;
// diffusers LCMScheduler.
class Lcm final : public TimestepSampler {
 public:
  using TimestepSampler::TimestepSampler;
  Draw draws(std::int64_t step) const override { return last(step) ? Draw::kNone : Draw::kAsFirst; }

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output, const at::Tensor& noise,
                    History& /*history*/) const override {
    const float time = static_cast<float>(timestep(step)) * static_cast<float>(config().timestep_scaling);
    const float power = time * time + kDataVariance;
    at::Tensor predicted =
        picture(x, output, alpha(timestep(step))) * (time / std::sqrt(power)) + x * (kDataVariance / power);
    if (last(step)) return predicted;
    const float next = alpha(timestep(step + 1));
    return predicted * std::sqrt(next) + noise * std::sqrt(1 - next);
  }
  [[nodiscard]] bool last(std::int64_t step) const {
    return step + 1 == static_cast<std::int64_t>(timesteps().size());
  }
};

}  // namespace

std::unique_ptr<Sampler> make_lcm(const Schedule& schedule) {
  return std::make_unique<Lcm>(schedule);
}

}  // namespace xdit::schedulers
