#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "schedulers/timestep_sampler.h"

namespace xdit::schedulers {
namespace {

// Ho et al. 2020, eq. 6 and 7; diffusers DDPMScheduler.
class Ddpm final : public TimestepSampler {
 public:
  using TimestepSampler::TimestepSampler;
  Draw draws(std::int64_t step) const override { return timestep(step) > 0 ? Draw::kAsFirst : Draw::kNone; }

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output, const at::Tensor& noise,
                    History& /*history*/) const override {
    const bool last = step + 1 == static_cast<std::int64_t>(timesteps().size());
    const float now = alpha(timestep(step));
    const float next = last ? 1 : alpha(timestep(step + 1));
    const float ratio = now / next;
    const float beta = 1 - ratio;
    at::Tensor mean = picture(x, output, now) * (std::sqrt(next) * beta / (1 - now)) +
                      x * (std::sqrt(ratio) * (1 - next) / (1 - now));
    if (!noise.defined()) return mean;
    const float variance = config().large_variance ? beta : std::max((1 - next) / (1 - now) * beta, 1e-20F);
    return mean + noise * std::sqrt(variance);
  }
};

}  // namespace

std::unique_ptr<Sampler> make_ddpm(const Schedule& schedule) {
  return std::make_unique<Ddpm>(schedule);
}

}  // namespace xdit::schedulers
