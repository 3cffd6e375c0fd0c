#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "models/denoiser.h"
#include "schedulers/sampler.h"

namespace xdit::parallel {

/// The prompts of one picture; `negative` only with classifier-free guidance (Ho & Salimans 2022): not at 1.
struct Guidance {
  const models::Branch* positive = nullptr;
  const models::Branch* negative = nullptr;
  const models::Branch* both = nullptr;  ///< joined, for a rank that computes both; null: one after the other
  double scale = 1;
  double rescale = 0;  ///< how far the guided prediction takes the positive one's deviation; 0: not
  /// The picture's rows [T, C] on every rank, from this rank's; unset where it holds them all.
  std::function<at::Tensor(const at::Tensor& rows)> whole{};
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

/// Both branches on this rank, together or one after the other.
class LocalGuide final : public Guide {
 public:
  [[nodiscard]] std::vector<const models::Branch*> branches(const Guidance& guidance) const override;
  [[nodiscard]] at::Tensor combine(std::span<const at::Tensor> predictions,
                                   const Guidance& guidance) override;
};

/// negative + scale (positive - negative), rescaled (Lin et al. 2023, eq. 15 and 16) by the deviations over
/// the whole picture.
[[nodiscard]] at::Tensor guided(const at::Tensor& positive, const at::Tensor& negative,
                                const Guidance& guidance);

/// Called after each evaluation with its number in the run (1-based) and the latents where the rank has them.
using OnStep = std::function<void(std::int64_t step, const at::Tensor& latents)>;

/// This rank's part of standard normal noise: each call draws the whole picture's, whatever the ranks.
using OnDraw = std::function<at::Tensor(schedulers::Draw draw)>;

/// Where a picture begins, and ends.
struct Start {
  at::Tensor latents;                                           ///< in the denoiser's layout
  std::int64_t first = 0;                                       ///< evaluation of the sampler's schedule
  std::int64_t end = std::numeric_limits<std::int64_t>::max();  ///< the evaluation that it stops before
  OnDraw draw;                                                  ///< for samplers that add noise
};

/// The noise that the sampler adds in evaluation `step`; undefined for none. Once an evaluation.
[[nodiscard]] at::Tensor drawn(const schedulers::Sampler& sampler, std::int64_t step, const Start& start);

/// Which tokens and which blocks run when.
class Loop {
 public:
  Loop() = default;
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  virtual ~Loop() = default;
  /// Latents of the picture, in the denoiser's layout.
  [[nodiscard]] virtual at::Tensor run(models::Denoiser& denoiser, const schedulers::Sampler& sampler,
                                       Guide& guide, const Guidance& guidance, const Start& start,
                                       const OnStep& on_step) = 0;
};

/// Whole steps one after the other.
class SerialLoop final : public Loop {
 public:
  /// `before` each forward: of which of this rank's prompts, and whether in one of the first `warmup` steps.
  using Before = std::function<void(std::int64_t branch, bool warm)>;
  explicit SerialLoop(Before before = {}, std::int64_t warmup = 0)
      : before_(std::move(before)), warmup_(warmup) {}
  [[nodiscard]] at::Tensor run(models::Denoiser& denoiser, const schedulers::Sampler& sampler, Guide& guide,
                               const Guidance& guidance, const Start& start, const OnStep& on_step) override;

 private:
  Before before_;
  std::int64_t warmup_;
};

}  // namespace xdit::parallel
