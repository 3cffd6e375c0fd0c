#pragma once
#include "schedulers/noise_levels.h"
#include "schedulers/prediction.h"
#include "schedulers/sampler.h"

namespace xdit::schedulers {

/// A sampler in k-diffusion's form (Karras et al. 2022): latents are picture + sigma noise, and the model
/// sees them scaled to variance 1.
class SigmaSampler : public Sampler {
 public:
  /// `levels`: of each evaluation, and where the last one ends.
  SigmaSampler(const DiffusionConfig& config, NoiseLevels levels);
  [[nodiscard]] at::Tensor model_input(std::int64_t step, const at::Tensor& latents) const override;

 protected:
  [[nodiscard]] float sigma(std::int64_t step) const { return sigmas_.at(static_cast<std::size_t>(step)); }
  [[nodiscard]] at::Tensor picture(std::int64_t step, const at::Tensor& x, const at::Tensor& output) const {
    return denoised(prediction_, x, output, sigma(step));
  }
  /// dx / dsigma.
  [[nodiscard]] at::Tensor slope(std::int64_t step, const at::Tensor& x, const at::Tensor& output) const;
  [[nodiscard]] Level level(std::int64_t step) const override { return {1, sigma(step)}; }
  [[nodiscard]] float first_noise() const override { return first_noise_; }

 private:
  Prediction prediction_;
  std::vector<float> sigmas_;
  float first_noise_;
};

/// A step to level `to` in two: down to a lower one, then noise `up`.
struct AncestralStep {
  float down = 0;
  float up = 0;
};
[[nodiscard]] AncestralStep ancestral(float from, float to);

[[nodiscard]] std::unique_ptr<Sampler> make_euler(const DiffusionConfig& config, std::int64_t steps);
[[nodiscard]] std::unique_ptr<Sampler> make_euler_ancestral(const DiffusionConfig& config,
                                                            std::int64_t steps);

}  // namespace xdit::schedulers
