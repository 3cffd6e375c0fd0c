#pragma once
#include "schedulers/noise_levels.h"
#include "schedulers/prediction.h"
#include "schedulers/sampler.h"

namespace xdit::schedulers {

/// A sampler over trained timesteps (Ho et al. 2020): latents of variance 1 are
/// sqrt(alpha) picture + sqrt(1 - alpha) noise, alpha the cumulative product at the timestep.
class TimestepSampler : public Sampler {
 public:
  TimestepSampler(const DiffusionConfig& config, const TrainedNoise& trained, std::vector<float> timesteps);

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

/// Whole timesteps of `steps` steps; leading unless the config says otherwise.
[[nodiscard]] std::vector<float> whole_timesteps(const DiffusionConfig& config, std::int64_t steps);

[[nodiscard]] std::unique_ptr<Sampler> make_ddim(const DiffusionConfig& config, std::int64_t steps);
[[nodiscard]] std::unique_ptr<Sampler> make_ddpm(const DiffusionConfig& config, std::int64_t steps);
[[nodiscard]] std::unique_ptr<Sampler> make_lcm(const DiffusionConfig& config, std::int64_t steps);
[[nodiscard]] std::unique_ptr<Sampler> make_pndm(const DiffusionConfig& config, std::int64_t steps);

}  // namespace xdit::schedulers
