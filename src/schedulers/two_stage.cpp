#include <ATen/ATen.h>

#include <cmath>

#include "schedulers/sigma_sampler.h"

namespace xdit::schedulers {
namespace {

// Two evaluations a step but for the last one: at its level, then at one in between or at the next.
class TwoStageSampler : public SigmaSampler {
 public:
  using SigmaSampler::SigmaSampler;
  std::int64_t order() const override { return 2; }

 protected:
  static bool second(std::int64_t step) { return step % 2 == 1; }
};

// Karras et al. 2022, algorithm 1; diffusers HeunDiscreteScheduler.
class Heun final : public TwoStageSampler {
 public:
  using TwoStageSampler::TwoStageSampler;

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                    const at::Tensor& /*noise*/, History& history) const override {
    const std::int64_t first = second(step) ? step - 1 : step;
    return heun_step(second(step), x, slope(step, x, output), sigma(first + 1) - sigma(first), history);
  }
};

// DPM-Solver-2 as Karras et al. 2022 write it: the slope half way in log sigma; diffusers
// KDPM2DiscreteScheduler.
class Dpm2 final : public TwoStageSampler {
 public:
  using TwoStageSampler::TwoStageSampler;

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                    const at::Tensor& /*noise*/, History& history) const override {
    if (second(step)) return history.latents + slope(step, x, output) * (sigma(step + 1) - sigma(step - 1));
    history.latents = x;
    return x + slope(step, x, output) * (sigma(step + 1) - sigma(step));
  }
};

float negative_log(float sigma) {
  return -std::log(sigma);
}
// Half way in log sigma to where the ancestral step goes down to.
float ancestral_middle(float from, float to) {
  const float t = negative_log(from);
  const float h = negative_log(ancestral(from, to).down) - t;
  return std::exp(-(t + 0.5F * h));
}

// DPM-Solver++ (2S) (Lu et al. 2022b, algorithm 1) with ancestral noise: k-diffusion
// sample_dpmpp_2s_ancestral.
class Dpm2sAncestral final : public TwoStageSampler {
 public:
  using TwoStageSampler::TwoStageSampler;
  Draw draws(std::int64_t step) const override { return second(step) ? Draw::kAsFirst : Draw::kNone; }

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output, const at::Tensor& noise,
                    History& history) const override {
    if (step + 1 == std::ssize(timesteps())) return x + slope(step, x, output) * -sigma(step);
    if (!second(step)) {
      history.latents = x;
      return towards(sigma(step), sigma(step + 1), x, picture(step, x, output));
    }
    const auto [down, up] = ancestral(sigma(step - 1), sigma(step + 1));
    return towards(sigma(step - 1), down, history.latents, picture(step, x, output)) + noise * up;
  }
  static at::Tensor towards(float from, float to, const at::Tensor& x, const at::Tensor& picture) {
    const float h = negative_log(to) - negative_log(from);
    return x * (to / from) - picture * std::expm1(-h);
  }
};

// Levels of all evaluations from those of steps; `middle` of a step's level and the next one.
template <class Middle>
NoiseLevels with_middles(const NoiseLevels& steps, const TrainedNoise& trained, Middle middle) {
  NoiseLevels all;
  for (std::size_t i = 0; i < steps.timesteps.size(); ++i) {
    all.sigmas.push_back(steps.sigmas[i]);
    all.timesteps.push_back(steps.timesteps[i]);
    if (i + 1 == steps.timesteps.size()) break;
    all.sigmas.push_back(middle(steps.sigmas[i], steps.sigmas[i + 1]));
    all.timesteps.push_back(static_cast<float>(trained.timestep_of(all.sigmas.back())));
  }
  all.sigmas.push_back(steps.sigmas.back());
  return all;
}

}  // namespace

at::Tensor heun_step(bool second, const at::Tensor& x, const at::Tensor& slope, float change,
                     History& history) {
  if (second) return history.latents + (history.outputs.front() + slope) / 2 * change;
  history.latents = x;
  history.outputs = {slope};
  return x + slope * change;
}

NoiseLevels twice(const NoiseLevels& steps) {
  NoiseLevels all{.sigmas = {steps.sigmas.front()}, .timesteps = {steps.timesteps.front()}};
  for (std::size_t i = 1; i < steps.timesteps.size(); ++i) {
    all.sigmas.insert(all.sigmas.end(), 2, steps.sigmas[i]);
    all.timesteps.insert(all.timesteps.end(), 2, steps.timesteps[i]);
  }
  all.sigmas.push_back(steps.sigmas.back());
  return all;
}

std::unique_ptr<Sampler> make_heun(const Schedule& schedule) {
  return std::make_unique<Heun>(schedule.config, twice(schedule.levels));
}

std::unique_ptr<Sampler> make_dpm_2(const Schedule& schedule) {
  NoiseLevels levels = schedule.levels;
  if (schedule.config.sigmas == Sigmas::kKarras)
    for (float& timestep : levels.timesteps) timestep = std::nearbyint(timestep);
  const auto middle = [](float from, float to) {
    return std::exp(std::log(from) - (std::log(from) - std::log(to)) * 0.5F);
  };
  return std::make_unique<Dpm2>(schedule.config,
                                with_middles(levels, trained_noise(schedule.config, true), middle));
}

std::unique_ptr<Sampler> make_dpm_2s_ancestral(const Schedule& schedule) {
  const TrainedNoise trained = trained_noise(schedule.config, true);
  NoiseLevels levels = schedule.levels;
  for (std::size_t i = 0; i < levels.timesteps.size(); ++i)  // k-diffusion goes by the levels alone
    levels.timesteps[i] = static_cast<float>(trained.timestep_of(levels.sigmas[i]));
  return std::make_unique<Dpm2sAncestral>(schedule.config, with_middles(levels, trained, ancestral_middle));
}

}  // namespace xdit::schedulers
