#include <ATen/ATen.h>

#include "schedulers/sigma_sampler.h"

namespace xdit::schedulers {
namespace {

// Karras et al. 2022, algorithm 1 without its second order; diffusers EulerDiscreteScheduler.
class Euler final : public SigmaSampler {
 public:
  using SigmaSampler::SigmaSampler;

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                    const at::Tensor& /*noise*/, History& /*history*/) const override {
    return x + slope(step, x, output) * (sigma(step + 1) - sigma(step));
  }
};

// Less noise than the next level holds, then the rest of it anew (k-diffusion; diffusers
// EulerAncestralDiscreteScheduler).
class EulerAncestral final : public SigmaSampler {
 public:
  using SigmaSampler::SigmaSampler;
  Draw draws(std::int64_t step) const override { return sigma(step + 1) > 0 ? Draw::kAsFirst : Draw::kNone; }

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output, const at::Tensor& noise,
                    History& /*history*/) const override {
    const auto [down, up] = ancestral(sigma(step), sigma(step + 1));
    const at::Tensor next = x + slope(step, x, output) * (down - sigma(step));
    return noise.defined() ? next + noise * up : next;
  }
};

}  // namespace

AncestralStep ancestral(float from, float to) {
  // From a terminal SNR of zero, `down` is the difference of numbers that agree in all but their last bits:
  // diffusers' is what torch's root leaves of it.
  const auto root = [](float value) { return at::sqrt(at::scalar_tensor(value)).item<float>(); };
  const float up = root(to * to * (from * from - to * to) / (from * from));
  return {root(to * to - up * up), up};
}

std::unique_ptr<Sampler> make_euler(const Schedule& schedule) {
  return std::make_unique<Euler>(schedule.config, schedule.levels);
}

std::unique_ptr<Sampler> make_euler_ancestral(const Schedule& schedule) {
  return std::make_unique<EulerAncestral>(schedule.config, schedule.levels);
}

}  // namespace xdit::schedulers
