#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "models/denoiser.h"
#include "models/vae/decoder.h"
#include "nn/weights.h"
#include "output/metadata.h"
#include "output/report.h"
#include "parallel/network_loader.h"
#include "parallel/spread.h"
#include "parallel/tensor_broadcast.h"
#include "pipeline/handoff.h"
#include "pipeline/preview.h"
#include "pipeline/prompts.h"
#include "pipeline/rank.h"
#include "pipeline/resident.h"
#include "pipeline/trace.h"
#include "schedulers/sampler.h"

namespace xdit::pipeline {

/// One rank's part of a run, from the files to its pictures.
class RankRun {
 public:
  RankRun(const RankJob& job, Listener& listener, output::Report& report, Resident& resident,
          Handoff& handoff);
  void run();
  void settle();  ///< after a failure: returns when the device works no more

 private:
  void encode_new_prompts();  ///< those that no job before had
  void encode_prompts();
  void share_prompts();  ///< from the rank that encodes to all
  [[nodiscard]] std::unique_ptr<nn::Weights> load(const std::string& component);
  [[nodiscard]] Networks load_networks();
  void make_pictures(const Networks& networks);
  [[nodiscard]] at::Tensor denoise(models::Denoiser& denoiser, const config::Picture& picture);
  [[nodiscard]] const models::Branch& branch(models::Denoiser& denoiser, const Prompt& prompt);
  /// The picture on the rank that writes it, from this rank's rows and the others'.
  [[nodiscard]] at::Tensor decode(const models::VaeDecoder& decoder, const at::Tensor& latents,
                                  std::int64_t picture);
  /// Undefined where it cannot be shown and the batch goes on without it.
  [[nodiscard]] at::Tensor finished(const at::Tensor& decoded, std::int64_t picture);
  void trace_prompt(const Prompt& prompt);
  [[nodiscard]] output::PictureRecord record_of(const config::Picture& picture) const;
  [[nodiscard]] output::Phase write(const config::Picture& picture, const at::Tensor& image) const;
  [[nodiscard]] output::Phase phase(const std::string& name, double start_s, double end_s,
                                    std::int64_t picture = -1, std::int64_t step = -1) const;

  const RankJob& job_;
  const parallel::RankPlan& plan_;
  Listener& listener_;
  output::Report& report_;
  Resident& resident_;
  Handoff& handoff_;
  at::Device device_;
  at::ScalarType dtype_;
  at::ScalarType drawn_;  ///< that noise is drawn in
  bool guided_;           ///< classifier-free guidance
  Trace trace_;
  models::VaeConfig vae_;
  parallel::Spread spread_;
  parallel::NetworkLoader loader_;
  std::vector<config::Picture> pictures_;  ///< of the run
  std::set<Prompt> prompts_;               ///< of the run
  std::map<Prompt, PromptIds> ids_;
  std::map<Prompt, models::PromptEmbedding> embeddings_;
  std::map<Prompt, std::unique_ptr<models::Branch>> branches_;
  std::unique_ptr<schedulers::Sampler> sampler_;
  parallel::Range evaluations_;            ///< of the sampler's, in this job
  std::vector<models::TokenRange> image_;  ///< tokens that this rank denoises
  Preview preview_;
  double prepared_from_s_ = 0;                ///< when the work for the next picture's steps began
  double waited_s_ = -1, host_bound_s_ = -1;  ///< as output::RankUse's
  std::atomic<std::uint64_t> bytes_read_{0};
};

}  // namespace xdit::pipeline
