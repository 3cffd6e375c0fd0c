#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>

#include "parallel/plan.h"
#include "pipeline/picture.h"
#include "pipeline/rank.h"
#include "pipeline/trace.h"
#include "schedulers/sampler.h"

namespace xdit::pipeline {

/// What the first model of two leaves to the second on a rank.
struct Handoff {
  struct Picture {
    at::Tensor latents;  ///< all of them, in the layout of the loop
    PictureNoise noise;  ///< the second goes on drawing from it
  };
  std::map<std::int64_t, Picture> pictures;  ///< by index
  Trace trace{false};
};

/// The evaluations that a stage makes: the first one those at times above the share `start` of the training's
/// noise levels, in whole steps of the sampler, and the second the others (diffusers' denoising_end and
/// denoising_start).
[[nodiscard]] parallel::Range evaluations_of(Stage stage, const schedulers::Sampler& sampler, double start,
                                             const nlohmann::json& scheduler_config);

}  // namespace xdit::pipeline
