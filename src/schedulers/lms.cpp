#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "schedulers/sigma_sampler.h"

namespace xdit::schedulers {
namespace {

constexpr std::int64_t kLmsOrder = 4;

// Linear multistep (Adams-Bashforth) over unevenly spread levels: k-diffusion; diffusers
// LMSDiscreteScheduler. Begun in the middle it counts its own slopes, where diffusers counts steps that it
// never made.
class Lms final : public SigmaSampler {
 public:
  using SigmaSampler::SigmaSampler;

 private:
  at::Tensor update(std::int64_t step, const at::Tensor& x, const at::Tensor& output,
                    const at::Tensor& /*noise*/, History& history) const override {
    std::vector<at::Tensor>& slopes = history.outputs;
    slopes.push_back(slope(step, x, output));
    if (std::ssize(slopes) > kLmsOrder) slopes.erase(slopes.begin());
    const std::int64_t order = std::ssize(slopes);
    at::Tensor change = slopes.back() * coefficient(step, order, 0);
    for (std::int64_t i = 1; i < order; ++i)
      change = change + slopes[static_cast<std::size_t>(order - 1 - i)] * coefficient(step, order, i);
    return x + change;
  }

  // The integral over the step of the Lagrange polynomial that is 1 at the level `which` steps ago and 0 at
  // the others: Gauss's two points are exact for its degree, 3.
  [[nodiscard]] double coefficient(std::int64_t step, std::int64_t order, std::int64_t which) const {
    const double middle = (static_cast<double>(sigma(step)) + sigma(step + 1)) / 2;
    const double half = (static_cast<double>(sigma(step + 1)) - sigma(step)) / 2;
    double sum = 0;
    for (const double point : {middle - half / std::sqrt(3.0), middle + half / std::sqrt(3.0)}) {
      double product = 1;
      for (std::int64_t k = 0; k < order; ++k)
        if (k != which)
          product *= (point - sigma(step - k)) / (static_cast<double>(sigma(step - which)) - sigma(step - k));
      sum += product * half;
    }
    return sum;
  }
};

}  // namespace

std::unique_ptr<Sampler> make_lms(const Schedule& schedule) {
  return std::make_unique<Lms>(schedule.config, schedule.levels);
}

}  // namespace xdit::schedulers
