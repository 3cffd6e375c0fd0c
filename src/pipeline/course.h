#pragma once
#include <c10/core/ScalarType.h>

#include <memory>

#include "config/run_spec.h"
#include "parallel/plan.h"
#include "pipeline/preview.h"
#include "pipeline/prompts.h"
#include "pipeline/rank.h"
#include "schedulers/sampler.h"

namespace xdit::pipeline {

/// How a job's pictures of one variant come out of noise.
struct Course {
  Course(const RankJob& job, config::RunSpec of);

  config::RunSpec spec;  ///< the job's for these pictures
  at::ScalarType drawn;  ///< that noise is drawn in
  Prompt negative;       ///< of guidance
  std::unique_ptr<schedulers::Sampler> sampler;
  parallel::Range evaluations;  ///< of the sampler's, in this job
  Preview preview;
};

}  // namespace xdit::pipeline
