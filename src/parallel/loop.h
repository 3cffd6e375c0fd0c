#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "models/denoiser.h"
#include "schedulers/sampler.h"

namespace xdit::parallel {

/// The prompts of one picture; `negative` only with classifier-free guidance (Ho & Salimans 2022).
struct Guidance {
  const models::Branch* positive = nullptr;
  const models::Branch* negative = nullptr;
  double scale = 1;
};

/// Called after each step with its number (1-based) and the latents.
using OnStep = std::function<void(std::int64_t step, const at::Tensor& latents)>;

/// Which tokens and which blocks run when.
class Loop {
 public:
  Loop() = default;
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  virtual ~Loop() = default;
  /// Latents of the picture from `noise`, both in the denoiser's layout.
  [[nodiscard]] virtual at::Tensor run(models::Denoiser& denoiser, const schedulers::Sampler& sampler,
                                       const Guidance& guidance, const at::Tensor& noise,
                                       const OnStep& on_step) = 0;
};

/// Whole steps one after the other; the branches of a guided step as well.
class SerialLoop final : public Loop {
 public:
  [[nodiscard]] at::Tensor run(models::Denoiser& denoiser, const schedulers::Sampler& sampler,
                               const Guidance& guidance, const at::Tensor& noise,
                               const OnStep& on_step) override;
};

}  // namespace xdit::parallel
