#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "schedulers/log_snr_sampler.h"

namespace xdit::schedulers {
namespace {

using Floats = std::vector<float>;

// x of a x = b, by Gauss's elimination with the largest pivot.
Floats solve(std::vector<Floats> a, Floats b) {
  const std::size_t n = b.size();
  for (std::size_t column = 0; column < n; ++column) {
    std::size_t pivot = column;
    for (std::size_t row = column + 1; row < n; ++row)
      if (std::abs(a[row][column]) > std::abs(a[pivot][column])) pivot = row;
    std::swap(a[column], a[pivot]);
    std::swap(b[column], b[pivot]);
    for (std::size_t row = column + 1; row < n; ++row) {
      const float factor = a[row][column] / a[column][column];
      for (std::size_t k = column; k < n; ++k) a[row][k] -= factor * a[column][k];
      b[row] -= factor * b[column];
    }
  }
  for (std::size_t row = n; row-- > 0;) {
    for (std::size_t k = row + 1; k < n; ++k) b[row] -= a[row][k] * b[k];
    b[row] /= a[row][row];
  }
  return b;
}

// UniPC (Zhao et al. 2023, algorithms 5 and 6) with predicted pictures; diffusers UniPCMultistepScheduler.
class UniPc final : public LogSnrSampler {
 public:
  UniPc(const DiffusionConfig& config, NoiseLevels levels)
      : LogSnrSampler(config, std::move(levels)), config_(config) {}

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                    const at::Tensor& /*noise*/, History& history) const override {
    const at::Tensor now = picture(step, x, output);
    const std::int64_t made = history.evaluations;
    history.latents = made > 0 ? advance(step - 1, order_at(step - 1, made - 1), history, now) : x;
    remember(now, config_.solver_order, history);
    return advance(step, order_at(step, made), history, {});
  }

  [[nodiscard]] std::int64_t order_at(std::int64_t step, std::int64_t made) const {
    const std::int64_t left = config_.lower_order_final ? steps() - step : config_.solver_order;
    return std::min({config_.solver_order, left, made + 1});
  }

  // From history.latents over the step, predicted by the pictures before it or, knowing the one after it,
  // corrected.
  [[nodiscard]] at::Tensor advance(std::int64_t step, std::int64_t order, const History& history,
                                   const at::Tensor& after) const {
    const auto [alpha, sigma] = mixture(step + 1);
    const float h = lambda(step + 1) - lambda(step);
    const float growth = std::expm1(-h);                             // h phi_1(h) of the paper
    const float scale = config_.solver_type == "bh1" ? -h : growth;  // B(h)
    const at::Tensor& now = history.outputs.back();
    Floats places;  // of the pictures, in steps from `now`
    for (std::int64_t i = 1; i < order; ++i) places.push_back((lambda(step - i) - lambda(step)) / h);
    const Floats weights = after.defined() ? corrector(places, h, scale) : predictor(places, h, scale);

    at::Tensor sum;
    const auto add = [&](const at::Tensor& difference, float weight) {
      sum = sum.defined() ? sum + difference * weight : difference * weight;
    };
    for (std::size_t i = 0; i < places.size(); ++i)
      add((*(history.outputs.rbegin() + static_cast<std::int64_t>(i) + 1) - now) / places[i], weights[i]);
    if (after.defined()) add(after - now, weights.back());
    const at::Tensor next = history.latents * (sigma / mixture(step).sigma) - now * (alpha * growth);
    return sum.defined() ? next - sum * (alpha * scale) : next;
  }

  [[nodiscard]] static Floats predictor(const Floats& places, float h, float scale) {
    if (places.size() < 2) return Floats(places.size(), 0.5F);
    return weights_of(places, h, scale);
  }
  [[nodiscard]] static Floats corrector(Floats places, float h, float scale) {
    places.push_back(1);
    if (places.size() < 2) return {0.5F};
    return weights_of(places, h, scale);
  }
  // Of the differences at `places`, so that polynomials are integrated exactly (eq. 5).
  [[nodiscard]] static Floats weights_of(const Floats& places, float h, float scale) {
    std::vector<Floats> powers(places.size());
    Floats moments;
    float phi = std::expm1(-h) / -h - 1;
    float factorial = 1;
    for (std::size_t i = 0; i < places.size(); ++i) {
      for (const float place : places) powers[i].push_back(std::pow(place, static_cast<float>(i)));
      moments.push_back(phi * factorial / scale);
      factorial *= static_cast<float>(i + 2);
      phi = phi / -h - 1 / factorial;
    }
    return solve(std::move(powers), std::move(moments));
  }

  DiffusionConfig config_;
};

}  // namespace

std::unique_ptr<Sampler> make_unipc(const Schedule& schedule) {
  return std::make_unique<UniPc>(schedule.config, schedule.levels);
}

}  // namespace xdit::schedulers
