#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "models/denoiser.h"
#include "models/vae/decoder.h"
#include "nn/attention.h"
#include "nn/linear.h"
#include "nn/weights.h"
#include "output/report.h"
#include "parallel/load.h"
#include "parallel/spread.h"
#include "pipeline/prompts.h"
#include "pipeline/rank.h"
#include "pipeline/trace.h"
#include "schedulers/sampler.h"

namespace xdit::pipeline {

/// One rank's part of a run, from the files to its pictures.
class RankRun {
 public:
  RankRun(const RankJob& job, Listener& listener, output::Report& report);
  void run();

 private:
  /// Denoiser and decoder, loaded.
  struct Networks {
    std::unique_ptr<nn::ResidentWeights> transformer;
    std::unique_ptr<nn::ResidentWeights> vae;
    double start_s = 0;
    double end_s = 0;
  };

  void make_all();  ///< the rank's pictures
  void encode_prompts();
  [[nodiscard]] parallel::Tensors load(const std::string& component);
  [[nodiscard]] Networks load_networks();
  void make_pictures(const Networks& networks);
  [[nodiscard]] at::Tensor denoise(models::Denoiser& denoiser, const config::Picture& picture);
  [[nodiscard]] const models::Branch& branch(models::Denoiser& denoiser, const std::string& prompt);
  /// The finished picture on the rank that writes it, from this rank's rows and the others'.
  [[nodiscard]] at::Tensor decode(const models::VaeDecoder& decoder, const at::Tensor& latents,
                                  std::int64_t picture);
  void trace_prompt(const std::string& prompt, const std::string& prefix);
  [[nodiscard]] output::Phase write(const config::Picture& picture, const at::Tensor& image) const;
  [[nodiscard]] output::Phase phase(const std::string& name, double start_s, double end_s,
                                    std::int64_t picture = -1, std::int64_t step = -1) const;

  const RankJob& job_;
  const parallel::RankPlan& plan_;
  Listener& listener_;
  output::Report& report_;
  at::Device device_;
  at::ScalarType dtype_;
  bool guided_;  ///< classifier-free guidance
  Trace trace_;
  nn::LocalLinears linears_;
  models::VaeConfig vae_;
  parallel::Spread spread_;
  std::map<std::string, PromptIds> ids_;
  std::map<std::string, models::PromptEmbedding> embeddings_;
  std::map<std::string, std::unique_ptr<models::Branch>> branches_;
  std::unique_ptr<schedulers::Sampler> sampler_;
  std::vector<float> times_;  ///< of its steps, 1 is noise
  std::atomic<std::uint64_t> bytes_read_{0};
};

}  // namespace xdit::pipeline
