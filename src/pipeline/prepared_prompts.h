#pragma once
#include <map>
#include <memory>

#include "models/denoiser.h"
#include "parallel/loop.h"
#include "pipeline/course.h"
#include "pipeline/prompts.h"
#include "pipeline/rank.h"

namespace xdit::pipeline {

/// The prompts of a job's pictures of one course, each prepared once for one denoiser.
class PreparedPrompts {
 public:
  /// `shape`: without size ids, which follow from the prompt. All outlive it.
  PreparedPrompts(const RankJob& job, const Course& course, models::Denoiser& denoiser,
                  const models::LoopShape& shape)
      : job_(job), course_(course), denoiser_(denoiser), shape_(shape) {}

  const models::Branch& prepare(const Prompt& prompt, const models::PromptEmbedding& embedding);
  /// How steps use these branches, `negative` or null for none: joined where the plan and the denoiser do so.
  [[nodiscard]] parallel::Guidance guidance(const models::Branch& positive, const models::Branch* negative);

 private:
  const RankJob& job_;
  const Course& course_;
  models::Denoiser& denoiser_;
  models::LoopShape shape_;
  std::map<Prompt, std::unique_ptr<models::Branch>> branches_;
  std::map<const models::Branch*, std::unique_ptr<models::Branch>> joined_;  ///< by the positive one
};

}  // namespace xdit::pipeline
