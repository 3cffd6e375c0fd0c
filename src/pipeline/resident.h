#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "comm/job.h"
#include "models/denoiser.h"
#include "nn/built_kernels.h"
#include "nn/weights.h"
#include "parallel/plan.h"
#include "parallel/replayed_denoiser.h"
#include "parallel/spread.h"
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
  std::unique_ptr<parallel::Spread> spread;    ///< of a job that runs, then of those like it. Goes last
  Networks networks;                           ///< of a job that runs; afterwards those that may stay
  KeptEmbeddings embeddings;                   ///< on the rank that encodes
  nn::BuiltKernels built;                      ///< for the rank's device
  std::unique_ptr<models::Denoiser> denoiser;  ///< of these networks, through the spread
  parallel::Replays replays;                   ///< of its forwards

  /// The spread of the job before, where it would be that of `next`, or another in its place: the same answer
  /// on every rank, since making it is collective.
  [[nodiscard]] parallel::Spread& spread_for(parallel::Spread::Run next);
  /// Whether the networks are those of `next`: the same answer on every rank, since loading is collective.
  /// When they are not, they are dropped and `next` loads its own.
  [[nodiscard]] bool serve(const parallel::Plan& next);
  /// Those of `plan` are loaded, which this rank may hold none of.
  void hold(Networks loaded, const parallel::Plan& plan);
  /// After a job of that plan: all outlasts it unless blocks are spread over ranks, which belong to its
  /// groups, or a device without room for both lets networks go while prompts are encoded.
  void release(const parallel::Plan& plan);
  void let_spread_go();  ///< and what works through it
  [[nodiscard]] bool holds() const { return loaded_.has_value(); }

 private:
  struct Origin {  ///< of a spread, beside what is the same for all jobs of these networks
    parallel::Plan plan;
    std::int64_t branches;
    std::shared_ptr<const comm::Job> peers;
    std::int64_t renewals;  ///< of peers: where it was renewed, a rank had failed, maybe another one
  };
  void let_denoiser_go();  ///< and its graphs
  void drop();

  std::optional<Origin> origin_;          ///< the spread's
  std::optional<parallel::Plan> loaded_;  ///< that the networks were loaded for
};

}  // namespace xdit::pipeline
