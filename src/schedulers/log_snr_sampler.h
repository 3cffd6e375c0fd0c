#pragma once
#include "schedulers/noise_levels.h"
#include "schedulers/prediction.h"
#include "schedulers/sampler.h"

namespace xdit::schedulers {

/// A solver in the logarithm of signal over noise (Lu et al. 2022): latents of variance 1 and predicted
/// pictures, whose last ones the history keeps.
class LogSnrSampler : public Sampler {
 public:
  LogSnrSampler(const DiffusionConfig& config, NoiseLevels levels);

 protected:
  [[nodiscard]] float sigma_over_alpha(std::int64_t step) const {
    return sigmas_.at(static_cast<std::size_t>(step));
  }
  [[nodiscard]] Mixture mixture(std::int64_t step) const;
  [[nodiscard]] float lambda(std::int64_t step) const;  ///< log(alpha / sigma)
  [[nodiscard]] at::Tensor picture(std::int64_t step, const at::Tensor& x, const at::Tensor& output) const {
    return picture_in(prediction_, x, output, mixture(step));
  }
  /// Keeps the last `count`.
  static void remember(const at::Tensor& picture, std::int64_t count, History& history);
  [[nodiscard]] Level level(std::int64_t step) const override;
  [[nodiscard]] std::int64_t steps() const { return static_cast<std::int64_t>(timesteps().size()); }

 private:
  Prediction prediction_;
  std::vector<float> sigmas_;
};

[[nodiscard]] std::unique_ptr<Sampler> make_dpm_2m(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_dpm_2m_sde(const Schedule& schedule);
[[nodiscard]] std::unique_ptr<Sampler> make_unipc(const Schedule& schedule);

}  // namespace xdit::schedulers
