#pragma once
#include <ATen/ATen.h>

#include <memory>

#include "comm/job.h"
#include "config/run_spec.h"
#include "models/registry.h"
#include "models/vae/tables.h"
#include "parallel/network_loader.h"
#include "parallel/plan.h"
#include "parallel/spread.h"

namespace xdit::tests {

/// A run of a small FLUX model on CPU ranks. Sizes in tokens.
struct Run {
  std::string model = "tiny-dev";
  config::RunSpec::Parallel parallel{};
  std::int64_t text = 13, rows = 5, columns = 7;
  std::int64_t steps = 2;
  double cfg_scale = 1;
  double rescale = 0;                        // of the guidance
  std::string sampler = "flow-match-euler";  // others step as for a model that predicts noise
  at::ScalarType type = at::kFloat;
  config::Quantize quantize = config::Quantize::kNone;
  std::int64_t ranks = 1;
};

[[nodiscard]] models::Model open_model(const Run& run);
[[nodiscard]] parallel::Plan plan_of(const Run& run, const models::Model& model);

/// A rank of the plan, with what it stores of the denoiser's weights. Collective.
struct LoadedRank {
  LoadedRank(const Run& run, const models::Model& model, const parallel::Plan& plan, std::int64_t rank,
             const std::shared_ptr<const comm::Job>& peers);
  const parallel::RankPlan& mine;
  models::VaeConfig vae;
  parallel::Spread spread;
  parallel::NetworkLoader loader;
  parallel::NetworkLoader::Arriving transformer;
};

/// The picture's latents [T, C] on rank `rank` of the plan: two prompts and noise from fixed seeds.
[[nodiscard]] at::Tensor denoise(const Run& run, const models::Model& model, std::int64_t rank,
                                 const std::shared_ptr<const comm::Job>& peers);
/// The same on one rank.
[[nodiscard]] at::Tensor denoise_alone(Run run, const models::Model& model);

}  // namespace xdit::tests
