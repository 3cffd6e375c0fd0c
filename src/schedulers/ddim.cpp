#include <ATen/ATen.h>

#include <cmath>

#include "schedulers/timestep_sampler.h"

namespace xdit::schedulers {
namespace {

// Song et al. 2021, eq. 12 with eta = 0; diffusers DDIMScheduler.
class Ddim final : public TimestepSampler {
 public:
  explicit Ddim(const Schedule& schedule)
      : TimestepSampler(schedule), stride_(schedule.config.training_steps / schedule.steps) {}

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                    const at::Tensor& /*noise*/, History& /*history*/) const override {
    const float now = alpha(timestep(step));
    const float next = alpha(timestep(step) - stride_);
    const at::Tensor noise = noise_in(config().prediction, x, output, {std::sqrt(now), std::sqrt(1 - now)});
    return picture(x, output, now) * std::sqrt(next) + noise * std::sqrt(1 - next);
  }

  std::int64_t stride_;
};

}  // namespace

std::unique_ptr<Sampler> make_ddim(const Schedule& schedule) {
  return std::make_unique<Ddim>(schedule);
}

}  // namespace xdit::schedulers
