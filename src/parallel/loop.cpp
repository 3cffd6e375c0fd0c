#include "parallel/loop.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace xdit::parallel {

namespace {

// Of [T, C] in float64, each row first: no order of additions follows the threads.
at::Tensor deviation(const at::Tensor& rows) {
  const at::Tensor values = rows.contiguous().to(at::kDouble);
  const at::Tensor centred = values - values.mean(1).mean();
  return ((centred * centred).sum(1).sum() / static_cast<double>(values.numel() - 1)).sqrt();
}

}  // namespace

at::Tensor guided(const at::Tensor& positive, const at::Tensor& negative, const Guidance& guidance) {
  at::Tensor combined = negative + (positive - negative) * guidance.scale;
  if (guidance.rescale == 0) return combined;
  const auto deviation_of = [&](const at::Tensor& rows) {
    return deviation(guidance.whole ? guidance.whole(rows) : rows);
  };
  const at::Tensor wanted = deviation_of(positive);
  const at::Tensor ratio = wanted / deviation_of(combined);
  return combined * (ratio * guidance.rescale + (1 - guidance.rescale)).to(at::kFloat);
}

at::Tensor drawn(const schedulers::Sampler& sampler, std::int64_t step, const Start& start) {
  const schedulers::Draw draw = sampler.draws(step);
  return draw == schedulers::Draw::kNone ? at::Tensor() : start.draw(draw);
}

std::vector<const models::Branch*> LocalGuide::branches(const Guidance& guidance) const {
  if (guidance.scale <= 1) return {guidance.positive};
  if (guidance.both != nullptr) return {guidance.both};
  return {guidance.positive, guidance.negative};
}

at::Tensor LocalGuide::combine(std::span<const at::Tensor> predictions, const Guidance& guidance) {
  if (guidance.scale <= 1) return predictions[0];
  if (guidance.both != nullptr) return guided(predictions[0][0], predictions[0][1], guidance);
  return guided(predictions[0], predictions[1], guidance);
}

at::Tensor SerialLoop::run(models::Denoiser& denoiser, const schedulers::Sampler& sampler, Guide& guide,
                           const Guidance& guidance, const Start& start, const OnStep& on_step) {
  at::Tensor latents = start.latents;
  schedulers::History history;
  const auto steps = std::min(static_cast<std::int64_t>(sampler.timesteps().size()), start.end);
  const std::int64_t warm = start.first + sampler.evaluations(warmup_);
  for (std::int64_t i = start.first; i < steps; ++i) {
    const at::Tensor input = sampler.model_input(i, latents);
    std::vector<at::Tensor> predictions;
    for (const models::Branch* branch : guide.branches(guidance)) {
      if (before_) before_(static_cast<std::int64_t>(predictions.size()), i < warm);
      denoiser.select(*branch, i);
      predictions.push_back(denoiser.predict(*branch, input, {}));
    }
    latents =
        sampler.step(i, latents, guide.combine(predictions, guidance), drawn(sampler, i, start), history);
    on_step(i + 1 - start.first, latents);
  }
  return latents;
}

}  // namespace xdit::parallel
