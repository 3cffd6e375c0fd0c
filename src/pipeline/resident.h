#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "models/denoiser.h"
#include "nn/built_kernels.h"
#include "nn/weights.h"
#include "parallel/plan.h"
#include "pipeline/prompts.h"

namespace xdit::pipeline {

/// Denoiser and decoder, loaded.
struct Networks {
  std::unique_ptr<nn::Weights> denoiser;
  std::unique_ptr<nn::Weights> vae;  ///< null where no pictures are made
};

/// Embeddings of prompts that later jobs may ask for again, in host memory.
class KeptEmbeddings {
 public:
  using Map = std::map<Prompt, models::PromptEmbedding>;
  /// Those of `prompts` that are here for texts of `length` tokens, on `device`.
  [[nodiscard]] Map find(const std::set<Prompt>& prompts, std::int64_t length, at::Device device) const;
  void keep(const Map& embeddings, std::int64_t length);

 private:
  Map kept_;
  std::int64_t length_ = 0;  ///< T5 tokens
};

/// What a rank keeps from one job to the next.
struct Resident {
  Networks networks;          ///< of a job that runs; afterwards those that may stay
  KeptEmbeddings embeddings;  ///< on the rank that encodes
  nn::BuiltKernels built;     ///< for the rank's device
  std::optional<std::pair<std::int64_t, parallel::Mesh>> sizes;  ///< tokens and grid of the job before

  /// Whether the networks are those of `next`: the same answer on every rank, since loading is collective.
  /// When they are not, they are dropped and `next` loads its own.
  [[nodiscard]] bool serve(const parallel::Plan& next);
  /// Those of `plan` are loaded, which this rank may hold none of.
  void hold(Networks loaded, const parallel::Plan& plan);
  /// After a job of that plan: weights outlast it unless blocks are spread over ranks, which belong to its
  /// groups, or a device without room for both lets networks go while prompts are encoded.
  void release(const parallel::Plan& plan);
  [[nodiscard]] bool holds() const { return loaded_.has_value(); }

 private:
  std::optional<parallel::Plan> loaded_;  ///< that the networks were loaded for
};

}  // namespace xdit::pipeline
