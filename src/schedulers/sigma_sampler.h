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
  /// The predicted picture, clipped where the config says so.
  [[nodiscard]] at::Tensor picture(std::int64_t step, const at::Tensor& x, const at::Tensor& output) const;
  /// dx / dsigma.
  [[nodiscard]] at::Tensor slope(std::int64_t step, const at::Tensor& x, const at::Tensor& output) const;
  [[nodiscard]] Level level(std::int64_t step) const override { return {1, sigma(step)}; }
  [[nodiscard]] float first_noise() const override { return first_noise_; }

 private:
  Prediction prediction_;
  std::optional<float> clip_;
  std::vector<float> sigmas_;
  float first_noise_;
};

/// A step to level `to` in two: down to a lower one, then noise `up`.
struct AncestralStep {
  float down = 0;
  float up = 0;
};
[[nodiscard]] AncestralStep ancestral(float from, float to);

/// One of the two evaluations of Heun's method over `change` of the level; the history holds the first.
[[nodiscard]] at::Tensor heun_step(bool second, const at::Tensor& x, const at::Tensor& slope, float change,
                                   History& history);
/// Levels of evaluations that are made twice at all levels but the first.
[[nodiscard]] NoiseLevels twice(const NoiseLevels& steps);

[[nodiscard]] std::unique_ptr<Sampler> make_euler(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_euler_ancestral(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_heun(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_dpm_2(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_dpm_2s_ancestral(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_lms(const Schedule& schedule);

}  // namespace xdit::schedulers
