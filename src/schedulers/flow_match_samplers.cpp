#include "schedulers/flow_match_samplers.h"

#include <ATen/ATen.h>

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

}  // namespace

std::unique_ptr<Sampler> make_flow_match_euler(FlowMatchSchedule schedule) {
  return std::make_unique<FlowMatchEuler>(std::move(schedule));
}

}  // namespace xdit::schedulers
