#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "schedulers/timestep_sampler.h"
#include "schedulers/timesteps.h"

namespace xdit::schedulers {
namespace {

// Liu et al. 2022: linear multistep on the noise, warmed up by a doubled second evaluation (skip_prk_steps)
// or by Runge-Kutta; diffusers PNDMScheduler. It counts its evaluations, wherever it begins.
class Pndm final : public TimestepSampler {
 public:
  explicit Pndm(const Schedule& schedule)
      : TimestepSampler(schedule),
        stride_(schedule.config.training_steps / schedule.steps),
        more_(std::ssize(timesteps()) - schedule.steps) {}
  std::int64_t evaluations(std::int64_t steps) const override { return steps + more_; }

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                    const at::Tensor& /*noise*/, History& history) const override {
    if (!config().skip_runge_kutta && history.evaluations < 4 * kPndmWarmSteps)
      return runge_kutta(step, x, output, history);
    return multistep(step, x, output, history);
  }

  // Section 3.3, eq. 13: outputs end with the weighted sum of the step's slopes while it lasts.
  [[nodiscard]] at::Tensor runge_kutta(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                                       History& history) const {
    const std::int64_t stage = history.evaluations % 4;
    const std::int64_t to = timestep(step) - (stage % 2 == 1 ? 0 : stride_ / 2);
    const std::int64_t from = timestep(step - stage);
    std::vector<at::Tensor>& slopes = history.outputs;
    if (stage == 0) {
      slopes.push_back(output);
      slopes.push_back(output * (1.0 / 6));
      history.latents = x;
    } else if (stage < 3) {
      slopes.back() = slopes.back() + output * (1.0 / 3);
    } else {
      const at::Tensor mean = slopes.back() + output * (1.0 / 6);
      slopes.pop_back();
      return transfer(history.latents, from, to, mean);
    }
    return transfer(history.latents, from, to, output);
  }

  [[nodiscard]] at::Tensor multistep(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                                     History& history) const {
    const std::int64_t now = timestep(step);
    std::vector<at::Tensor>& slopes = history.outputs;
    const auto past = [&](std::int64_t i) { return *(slopes.rbegin() + i); };
    if (history.evaluations == 1)  // the first step again, with the mean of the slopes at both its ends
      return transfer(history.latents, now + stride_, now, (output + past(0)) / 2);
    slopes.push_back(output);
    if (slopes.size() > 4) slopes.erase(slopes.begin());
    if (history.evaluations == 0) history.latents = x;
    at::Tensor mean = output;
    if (slopes.size() == 2) mean = (past(0) * 3 - past(1)) / 2;
    if (slopes.size() == 3) mean = (past(0) * 23 - past(1) * 16 + past(2) * 5) / 12;
    if (slopes.size() == 4) mean = (past(0) * 55 - past(1) * 59 + past(2) * 37 - past(3) * 9) * (1.0 / 24);
    return transfer(x, now, now - stride_, mean);
  }

  // Eq. 9: along a slope from one timestep to another.
  [[nodiscard]] at::Tensor transfer(const at::Tensor& x, std::int64_t from, std::int64_t to,
                                    const at::Tensor& output) const {
    const float now = alpha(from);
    const float next = alpha(to);
    const at::Tensor noise = noise_in(config().prediction, x, output, {std::sqrt(now), std::sqrt(1 - now)});
    const float denominator = now * std::sqrt(1 - next) + std::sqrt(now * (1 - now) * next);
    return x * std::sqrt(next / now) - noise * (next - now) / denominator;
  }

  std::int64_t stride_;
  std::int64_t more_;  // evaluations than steps, to warm up with
};

}  // namespace

std::unique_ptr<Sampler> make_pndm(const Schedule& schedule) {
  return std::make_unique<Pndm>(schedule);
}

}  // namespace xdit::schedulers
