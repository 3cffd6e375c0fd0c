#include "schedulers/flow_match_samplers.h"

#include <ATen/ATen.h>

#include "schedulers/sigma_sampler.h"

namespace xdit::schedulers {
namespace {

class FlowMatchSampler : public Sampler {
 public:
  explicit FlowMatchSampler(FlowMatchSchedule schedule)
      : Sampler(std::move(schedule.timesteps)), sigmas_(std::move(schedule.sigmas)) {}

 protected:
  [[nodiscard]] float sigma(std::int64_t step) const { return sigmas_.at(static_cast<std::size_t>(step)); }
  Level level(std::int64_t step) const override { return {1 - sigma(step), sigma(step)}; }

 private:
  std::vector<float> sigmas_;
};

class FlowMatchEuler final : public FlowMatchSampler {
 public:
  using FlowMatchSampler::FlowMatchSampler;

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                    const at::Tensor& /*noise*/, History& /*history*/) const override {
    return x + output * (sigma(step + 1) - sigma(step));
  }
};

class FlowMatchHeun final : public FlowMatchSampler {
 public:
  using FlowMatchSampler::FlowMatchSampler;
  std::int64_t order() const override { return 2; }

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                    const at::Tensor& /*noise*/, History& history) const override {
    const bool second = step % 2 == 1;
    const std::int64_t first = second ? step - 1 : step;
    const at::Tensor slope = (x - denoised(Prediction::kEpsilon, x, output, sigma(step))) / sigma(step);
    return heun_step(second, x, slope, sigma(first + 1) - sigma(first), history);
  }
};

}  // namespace

std::unique_ptr<Sampler> make_flow_match_euler(FlowMatchSchedule schedule) {
  return std::make_unique<FlowMatchEuler>(std::move(schedule));
}

std::unique_ptr<Sampler> make_flow_match_heun(const FlowMatchSchedule& schedule) {
  return std::make_unique<FlowMatchHeun>(twice(schedule));
}

}  // namespace xdit::schedulers
