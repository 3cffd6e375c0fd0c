#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <utility>
#include <vector>

#include "schedulers/schedule.h"

namespace xdit::schedulers {

/// What a solver remembers of one picture, or of one band of it, between evaluations of the model. A value.
struct History {
  std::int64_t evaluations = 0;     ///< so far
  std::vector<at::Tensor> outputs;  ///< float32, in the solver's own form, latest last
  at::Tensor latents;               ///< float32, where the step of the solver began
};

/// Standard normal noise that a step adds: none, in the dtype of the picture's first noise, or in float32
/// whatever that is (as diffusers' SDE solvers draw it).
enum class Draw : std::uint8_t { kNone, kAsFirst, kFloat32 };

/// Turns predictions into the next latents. Immutable: a picture's state is its History. Every function acts
/// on each element alone, so a part of the latents gives that part of the result, bit for bit.
class Sampler {
 public:
  explicit Sampler(std::vector<float> timesteps) : timesteps_(std::move(timesteps)) {}
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;
  virtual ~Sampler() = default;

  /// The model's times 0..1000, one for each of its evaluations, in the order of diffusers' list.
  [[nodiscard]] std::span<const float> timesteps() const { return timesteps_; }
  /// Evaluations that a step takes: a picture may begin at multiples of it.
  [[nodiscard]] virtual std::int64_t order() const { return 1; }
  /// How many evaluations the first `steps` steps take, or more where they are all.
  [[nodiscard]] virtual std::int64_t evaluations(std::int64_t steps) const { return steps * order(); }
  /// Latents to begin the whole schedule with.
  [[nodiscard]] at::Tensor begin(const at::Tensor& noise) const;
  /// Latents to begin evaluation `step` with, of a picture's own.
  [[nodiscard]] at::Tensor begin(const at::Tensor& noise, const at::Tensor& picture, std::int64_t step) const;
  /// What the model sees of the latents.
  [[nodiscard]] virtual at::Tensor model_input(std::int64_t step, const at::Tensor& latents) const;
  [[nodiscard]] virtual Draw draws(std::int64_t /*step*/) const { return Draw::kNone; }
  /// Latents after evaluation `step` (0-based) from those before it and the model's output there, in the
  /// output's dtype; computed in float32. `noise` as drawn for this step, undefined where it draws none. The
  /// history may keep what is passed: nobody writes to it.
  [[nodiscard]] at::Tensor step(std::int64_t step, const at::Tensor& latents, const at::Tensor& output,
                                const at::Tensor& noise, History& history) const;

 protected:
  /// Latents at a noise level: `signal` parts picture, `noise` parts noise.
  struct Level {
    float signal = 1;
    float noise = 1;
  };
  [[nodiscard]] virtual Level level(std::int64_t step) const = 0;
  [[nodiscard]] virtual float first_noise() const { return 1; }  ///< diffusers' init_noise_sigma
  /// `step` in float32.
  [[nodiscard]] virtual at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                                          const at::Tensor& noise, History& history) const = 0;

 private:
  std::vector<float> timesteps_;
};

/// The sampler of that name, with the errors of schedule_of.
[[nodiscard]] std::unique_ptr<Sampler> make_sampler(const SamplerOptions& options,
                                                    const nlohmann::json& config);

}  // namespace xdit::schedulers
