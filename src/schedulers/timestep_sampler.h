#pragma once
#include "schedulers/noise_levels.h"
#include "schedulers/prediction.h"
#include "schedulers/sampler.h"

namespace xdit::schedulers {

/// A sampler over trained timesteps (Ho et al. 2020): latents of variance 1 are
/// sqrt(alpha) picture + sqrt(1 - alpha) noise, alpha the cumulative product at the timestep.
class TimestepSampler : public Sampler {
 public:
  explicit TimestepSampler(const Schedule& schedule);

 protected:
  [[nodiscard]] const DiffusionConfig& config() const { return config_; }
  [[nodiscard]] std::int64_t timestep(std::int64_t step) const;
  /// At a timestep; before the first one the config's final alpha.
  [[nodiscard]] float alpha(std::int64_t timestep) const;
  /// The predicted picture, clipped where the config says so.
  [[nodiscard]] at::Tensor picture(const at::Tensor& x, const at::Tensor& output, float alpha) const;
  [[nodiscard]] Level level(std::int64_t step) const override;

 private:
  DiffusionConfig config_;
  std::vector<float> alphas_;
};

[[nodiscard]] std::unique_ptr<Sampler> make_ddim(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_ddpm(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_lcm(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_pndm(const Schedule& schedule);

}  // namespace xdit::schedulers
