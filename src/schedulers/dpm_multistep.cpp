#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "schedulers/log_snr_sampler.h"

namespace xdit::schedulers {
namespace {

constexpr std::int64_t kFewSteps = 15;  // below it the last orders fall

// DPM-Solver++ (Lu et al. 2022b, algorithm 2) and its SDE form; diffusers DPMSolverMultistepScheduler with
// dpmsolver++ and sde-dpmsolver++.
class DpmMultistep final : public LogSnrSampler {
 public:
  DpmMultistep(const DiffusionConfig& config, NoiseLevels levels, bool sde)
      : LogSnrSampler(config, std::move(levels)), config_(config), sde_(sde) {}
  Draw draws(std::int64_t step) const override {
    return sde_ && sigma_over_alpha(step + 1) > 0 ? Draw::kFloat32 : Draw::kNone;
  }

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output, const at::Tensor& noise,
                    History& history) const override {
    const std::int64_t order = order_at(step, std::min(history.evaluations, config_.solver_order));
    remember(picture(step, x, output), config_.solver_order, history);
    const auto [alpha, sigma] = mixture(step + 1);
    const float h = lambda(step + 1) - lambda(step);
    const float kh = sde_ ? 2 * h : h;
    const float rest = 1 - std::exp(-kh);
    const float kept = sigma / mixture(step).sigma * (sde_ ? std::exp(-h) : 1);

    const auto past = [&](std::int64_t i) { return *(history.outputs.rbegin() + i); };
    at::Tensor next = x * kept + past(0) * (alpha * rest);
    if (order > 1) {
      const float r0 = (lambda(step) - lambda(step - 1)) / h;
      at::Tensor first = (past(0) - past(1)) * (1 / r0);  // derivatives of the picture in lambda
      at::Tensor second;
      if (order > 2) {
        const float r1 = (lambda(step - 1) - lambda(step - 2)) / h;
        const at::Tensor change = first - (past(1) - past(2)) * (1 / r1);
        first = first + change * (r0 / (r0 + r1));
        second = change * (1 / (r0 + r1));
      }
      const bool midpoint = order == 2 && config_.solver_type != "heun";
      next = next + first * (midpoint ? 0.5F * (alpha * rest) : alpha * (rest / -kh + 1));
      // The half has the sign that diffusers gives it in each form.
      if (order > 2) next = next + second * (alpha * ((rest - kh) / (kh * kh) + (sde_ ? -0.5F : 0.5F)));
    }
    return noise.defined() ? next + noise * (sigma * std::sqrt(rest)) : next;
  }

  [[nodiscard]] std::int64_t order_at(std::int64_t step, std::int64_t known) const {
    const bool few = config_.lower_order_final && steps() < kFewSteps;
    if (step + 1 == steps() && (config_.euler_at_final || few || !config_.final_sigma_min)) return 1;
    if (step + 2 == steps() && few) return std::min({config_.solver_order, known + 1, std::int64_t{2}});
    return std::min(config_.solver_order, known + 1);
  }

  DiffusionConfig config_;
  bool sde_;
};

}  // namespace

std::unique_ptr<Sampler> make_dpm_2m(const Schedule& schedule) {
  return std::make_unique<DpmMultistep>(schedule.config, schedule.levels, false);
}

std::unique_ptr<Sampler> make_dpm_2m_sde(const Schedule& schedule) {
  return std::make_unique<DpmMultistep>(schedule.config, schedule.levels, true);
}

}  // namespace xdit::schedulers
