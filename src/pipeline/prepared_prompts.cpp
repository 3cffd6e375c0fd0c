#include "pipeline/prepared_prompts.h"

#include <vector>

namespace xdit::pipeline {

const models::Branch& PreparedPrompts::prepare(const Prompt& prompt,
                                               const models::PromptEmbedding& embedding) {
  std::unique_ptr<models::Branch>& prepared = branches_[prompt];
  if (!prepared) {
    const std::vector<double> sizes = size_ids(course_.spec, job_.model, prompt.negative);
    models::LoopShape shape = shape_;
    shape.size_ids = sizes;
    prepared = denoiser_.prepare(embedding, shape);
  }
  return *prepared;
}

parallel::Guidance PreparedPrompts::guidance(const models::Branch& positive, const models::Branch* negative) {
  const config::RunSpec::Sampling& sampling = course_.spec.sampling;
  parallel::Guidance guidance{.positive = &positive,
                              .negative = negative,
                              .scale = sampling.cfg_scale,
                              .rescale = sampling.guidance_rescale.value_or(0)};
  if (!job_.plan.joins_branches || negative == nullptr) return guidance;
  std::unique_ptr<models::Branch>& both = joined_[&positive];
  if (!both) both = denoiser_.join(positive, *negative);
  guidance.both = both.get();
  return guidance;
}

}  // namespace xdit::pipeline
