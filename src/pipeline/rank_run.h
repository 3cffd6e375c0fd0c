#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "models/denoiser.h"
#include "models/vae/decoder.h"
#include "output/report.h"
#include "parallel/network_loader.h"
#include "parallel/spread.h"
#include "parallel/tensor_broadcast.h"
#include "pipeline/arrivals.h"
#include "pipeline/course.h"
#include "pipeline/handoff.h"
#include "pipeline/prepared_prompts.h"
#include "pipeline/prompts.h"
#include "pipeline/rank.h"
#include "pipeline/resident.h"
#include "pipeline/trace.h"

namespace xdit::pipeline {

[[nodiscard]] at::Device device_of(const RankJob& job);

/// One rank's part of a run, from the files to its pictures.
class RankRun {
 public:
  RankRun(const RankJob& job, Listener& listener, output::Report& report, Resident& resident,
          Handoff& handoff);
  void run();
  void settle();  ///< after a failure: returns when the device works no more

 private:
  [[nodiscard]] at::TensorOptions options() const;
  [[nodiscard]] std::int64_t latents_of(std::int64_t pixels) const;
  [[nodiscard]] bool meets_new_prompts();  ///< which no job before had
  [[nodiscard]] EncoderWeights expect_encoders(Arrivals& arrivals);
  [[nodiscard]] Networks expect_networks(Arrivals& arrivals);
  /// Runs once what the job will run, on weights that hold anything. Collective over all ranks.
  void warm_up(const EncoderWeights& encoders, const Networks& networks);
  void encode_prompts(EncoderWeights encoders, Arrivals& arrivals);
  void share_prompts();  ///< from the rank that encodes to all
  void make_pictures(const Networks& networks);
  [[nodiscard]] at::Tensor denoise(models::Denoiser& denoiser, PreparedPrompts& prepared,
                                   const config::Picture& picture);
  [[nodiscard]] parallel::Spread::Run spread_run() const;
  [[nodiscard]] std::unique_ptr<models::Denoiser> make_denoiser(const Networks& networks);
  [[nodiscard]] std::set<Prompt> prompts_of(const config::Picture& picture) const;
  [[nodiscard]] const config::Picture& my_picture(std::int64_t i) const;  ///< of this rank's
  [[nodiscard]] models::LoopShape loop_shape(const Course& course) const;
  [[nodiscard]] parallel::Guidance guidance(PreparedPrompts& prepared, const models::Branch& positive,
                                            const models::Branch* negative);
  [[nodiscard]] at::Tensor mine(const at::Tensor& all) const;  ///< of tokens of a picture, this rank's
  void show(const Course& course, const at::Tensor& latents, std::int64_t picture);  ///< a preview
  /// The picture on the rank that writes it, from this rank's rows and the others'.
  [[nodiscard]] at::Tensor decode(const models::VaeDecoder& decoder, const at::Tensor& latents);
  /// The same, told and timed, as an image; undefined on other ranks and where it is none.
  [[nodiscard]] at::Tensor decode_timed(const models::VaeDecoder& decoder, const at::Tensor& latents,
                                        std::int64_t picture);
  [[nodiscard]] at::Tensor finished(const at::Tensor& decoded, std::int64_t picture);  ///< or undefined
  void trace_prompt(const Prompt& prompt);
  void note_peak();
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
  std::map<std::size_t, Course> courses_;  ///< by variant
  std::map<std::size_t, Error> faults_;    ///< of a batch's variants that have none
  bool guided_;                            ///< all of them
  Trace trace_;
  models::VaeConfig vae_;
  bool stayed_;  ///< the networks did
  parallel::Spread& spread_;
  parallel::NetworkLoader loader_;
  std::vector<config::Picture> pictures_;  ///< of the run; prompts as well
  std::set<Prompt> prompts_;
  std::map<Prompt, PromptIds> ids_;
  std::map<Prompt, models::PromptEmbedding> embeddings_;
  std::vector<models::TokenRange> image_;  ///< tokens that this rank denoises
  bool previews_fail_ = false;
  double prepared_from_s_ = 0;                ///< when the work for the next picture's steps began
  double stepped_s_ = 0;                      ///< when the last step was over
  double waited_s_ = -1, host_bound_s_ = -1;  ///< as output::RankUse's
  std::uint64_t warm_up_bytes_ = 0, peak_device_bytes_ = 0;  ///< sent to other ranks in vain; note_peak's
};

}  // namespace xdit::pipeline
