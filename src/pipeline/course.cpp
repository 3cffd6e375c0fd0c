#include "pipeline/course.h"

#include <utility>

#include "parallel/load.h"
#include "pipeline/handoff.h"

namespace xdit::pipeline {

Course::Course(const RankJob& job, config::RunSpec of)
    : spec(std::move(of)),
      drawn(parallel::torch_type(spec.sampling.rng_dtype.value_or(spec.model.dtype))),
      negative(negative_of(spec)),
      sampler(schedulers::make_sampler({.name = spec.sampling.scheduler,
                                        .sigmas = spec.sampling.sigmas,
                                        .timestep_spacing = spec.sampling.timestep_spacing,
                                        .prediction = spec.sampling.prediction,
                                        .steps = spec.sampling.steps,
                                        .image_tokens = job.plan.image_tokens,
                                        .shift = spec.sampling.shift},
                                       job.model.files.scheduler_config)),
      evaluations(
          evaluations_of(job.stage, *sampler, spec.sampling.refiner_start, job.model.files.scheduler_config)),
      preview(spec.output.preview, job.model, *sampler) {}

}  // namespace xdit::pipeline
