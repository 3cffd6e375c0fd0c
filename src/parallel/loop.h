#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/denoiser.h"
#include "schedulers/sampler.h"

namespace xdit::parallel {

/// The prompts of one picture; `negative` only with classifier-free guidance (Ho & Salimans 2022), which is
/// off at 1.
struct Guidance {
  const models::Branch* positive = nullptr;
  const models::Branch* negative = nullptr;
  double scale = 1;
};

/// Which rank computes which branch of a guided step.
class Guide {
 public:
  Guide() = default;
  Guide(const Guide&) = delete;
  Guide& operator=(const Guide&) = delete;
  virtual ~Guide() = default;
  /// The branches that this rank computes, in order.
  [[nodiscard]] virtual std::vector<const models::Branch*> branches(const Guidance& guidance) const = 0;
  /// The guided prediction from theirs.
  [[nodiscard]] virtual at::Tensor combine(std::span<const at::Tensor> predictions,
                                           const Guidance& guidance) = 0;
};

/// Both branches on this rank, one after the other.
class LocalGuide final : public Guide {
 public:
  [[nodiscard]] std::vector<const models::Branch*> branches(const Guidance& guidance) const override;
  [[nodiscard]] at::Tensor combine(std::span<const at::Tensor> predictions,
                                   const Guidance& guidance) override;
};

/// negative + scale (positive - negative).
[[nodiscard]] at::Tensor guided(const at::Tensor& positive, const at::Tensor& negative, double scale);

/// Called after each step with its number (1-based) and the latents; undefined where the rank does not hold
/// them.
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
                                       Guide& guide, const Guidance& guidance, const at::Tensor& noise,
                                       const OnStep& on_step) = 0;
};

/// Whole steps one after the other.
class SerialLoop final : public Loop {
 public:
  [[nodiscard]] at::Tensor run(models::Denoiser& denoiser, const schedulers::Sampler& sampler, Guide& guide,
                               const Guidance& guidance, const at::Tensor& noise,
                               const OnStep& on_step) override;
};

}  // namespace xdit::parallel
