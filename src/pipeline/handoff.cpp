#include "pipeline/handoff.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace xdit::pipeline {

parallel::Range evaluations_of(Stage stage, const schedulers::Sampler& sampler, double start,
                               const nlohmann::json& scheduler_config) {
  const std::span<const float> times = sampler.timesteps();
  const auto all = static_cast<std::int64_t>(times.size());
  if (stage == Stage::kWhole) return {0, all};
  const double levels =
      scheduler_config.is_object() ? scheduler_config.value("num_train_timesteps", 1000.0) : 1000;
  const double cutoff = std::nearbyint(levels - start * levels);  // as Python rounds
  std::int64_t first = std::count_if(times.begin(), times.end(), [&](float time) { return time >= cutoff; });
  if (first < all) first -= first % sampler.order();
  return stage == Stage::kFirst ? parallel::Range{0, first} : parallel::Range{first, all - first};
}

}  // namespace xdit::pipeline
