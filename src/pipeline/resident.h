#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "models/denoiser.h"
#include "nn/built_kernels.h"
#include "nn/side_stream.h"
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

/// A denoiser that jobs of one size share, and what it computes through.
struct Standing {
  std::unique_ptr<parallel::Spread> spread;  ///< null: the job's
  std::unique_ptr<models::Denoiser> denoiser;
};

/// What a rank keeps from one job to the next.
struct Resident {
  Networks networks;          ///< of a job that runs; afterwards those that may stay
  KeptEmbeddings embeddings;  ///< on the rank that encodes
  nn::BuiltKernels built;     ///< for the rank's device
  /// Of that device: cuBLAS keeps a workspace for each stream that it has seen.
  std::shared_ptr<nn::SideStream> beside;
  std::unique_ptr<Standing> standing;  ///< of these networks; null where ranks exchange something
  parallel::Replays replays;           ///< of its forwards, or of a job's while it runs

  /// Lets go of what was made for other sizes than `next` has; true if there were others.
  bool fit(const parallel::Plan& next);
  /// Whether the networks are those of `next`: the same answer on every rank, since loading is collective.
  /// When they are not, they are dropped and `next` loads its own.
  [[nodiscard]] bool serve(const parallel::Plan& next);
  /// Those of `plan` are loaded, which this rank may hold none of.
  void hold(Networks loaded, const parallel::Plan& plan);
  /// After a job of that plan: weights outlast it unless blocks are spread over ranks, which belong to its
  /// groups, or a device without room for both lets networks go while prompts are encoded.
  void release(const parallel::Plan& plan);
  void let_denoiser_go();  ///< and its graphs
  [[nodiscard]] bool holds() const { return loaded_.has_value(); }

 private:
  struct Sizes {
    std::int64_t tokens, columns;
    parallel::Mesh mesh;
    friend bool operator==(const Sizes&, const Sizes&) = default;
  };
  void drop();

  std::optional<Sizes> sizes_;            ///< of the job before
  std::optional<parallel::Plan> loaded_;  ///< that the networks were loaded for
};

}  // namespace xdit::pipeline
