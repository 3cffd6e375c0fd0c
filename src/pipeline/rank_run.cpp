#include "pipeline/rank_run.h"

#include <ATen/ATen.h>

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <optional>
#include <set>
#include <utility>

#include "core/error.h"
#include "parallel/plan_weights.h"
#include "pipeline/marks.h"

namespace xdit::pipeline {
namespace {

at::ScalarType torch_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return at::kFloat;
    case DType::kF16:
      return at::kHalf;
    case DType::kBF16:
      return at::kBFloat16;
    default:
      broken_invariant("runs are in fp32, fp16 or bf16", __FILE__, __LINE__);
  }
}

}  // namespace

RankRun::RankRun(const RankJob& job, Listener& listener, output::Report& report, Resident& resident,
                 Handoff& handoff)
    : job_(job),
      plan_(job.plan.ranks.at(static_cast<std::size_t>(job.rank))),
      listener_(listener),
      report_(report),
      resident_(resident),
      handoff_(handoff),
      device_(job.spec.runtime.device == config::Device::kCpu
                  ? at::Device(at::kCPU)
                  : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(plan_.device))),
      dtype_(torch_type(job.spec.model.dtype)),
      drawn_(torch_type(job.spec.sampling.rng_dtype.value_or(job.spec.model.dtype))),
      guided_(job.spec.sampling.cfg_scale > 1),
      trace_(job.stage == Stage::kSecond ? std::move(handoff.trace) : Trace(!job.spec.output.trace.empty())),
      vae_(models::read_vae_config(job.model.files.components.at("vae").config, "vae/config.json")),
      spread_({.plan = job.plan,
               .rank = job.rank,
               .model = job.model,
               .vae = vae_,
               .branches = guided_ ? 2 : 1,
               .peers = job.peers,
               .timeout = std::chrono::duration_cast<std::chrono::nanoseconds>(
                   std::chrono::duration<double>(job.spec.runtime.timeout_s)),
               .options = at::TensorOptions().dtype(dtype_).device(device_)}),
      loader_(job.plan, plan_, job.model, spread_, at::TensorOptions().dtype(dtype_).device(device_)),
      pictures_(config::pictures(job.spec)),
      sampler_(schedulers::make_sampler({.name = job.spec.sampling.scheduler,
                                         .sigmas = job.spec.sampling.sigmas,
                                         .timestep_spacing = job.spec.sampling.timestep_spacing,
                                         .prediction = job.spec.sampling.prediction,
                                         .steps = job.spec.sampling.steps,
                                         .image_tokens = job.plan.image_tokens,
                                         .shift = job.spec.sampling.shift},
                                        job.model.files.scheduler_config)),
      evaluations_(evaluations_of(job.stage, *sampler_, job.spec.sampling.refiner_start,
                                  job.model.files.scheduler_config)),
      preview_(job.spec.output.preview, job.model, *sampler_) {
  for (const parallel::Range& band : plan_.image_tokens) image_.push_back({band.first, band.count});
  for (const config::Picture& picture : pictures_) prompts_.insert({picture.prompt});
  if (guided_) prompts_.insert(negative_of(job.spec));
}

output::Phase RankRun::phase(const std::string& name, double start_s, double end_s, std::int64_t picture,
                             std::int64_t step) const {
  return {name, start_s - job_.started_s, end_s - job_.started_s, job_.rank, picture, step};
}

void RankRun::run() {
  std::future<Networks> networks;
  const auto begin_loading = [&] {
    networks = std::async(std::launch::async, [this] { return load_networks(); });
  };
  if (std::exchange(resident_.used, true)) release_cached_memory(device_);  // of other sizes
  const bool stayed = resident_.serve(job_.plan);
  const bool holds = !plan_.networks.empty();
  const bool loads = holds && !stayed;
  if (loads && plan_.overlap_loading) begin_loading();
  if (plan_.encodes)
    encode_new_prompts();
  else
    listener_.begin("text_encode", 0);  // another rank's
  share_prompts();
  if (loads) {
    if (!plan_.overlap_loading) begin_loading();
    listener_.begin("load", 0);
    resident_.hold(networks.get(), job_.plan);
    report_.phases.push_back(phase("load", resident_.networks.start_s, resident_.networks.end_s));
    listener_.finish();
  } else if (!stayed) {
    resident_.hold({}, job_.plan);
  }
  if (plan_.pictures.count > 0) make_pictures(resident_.networks);
  resident_.release(job_.plan);
  if (holds) {
    Marks done(device_);
    done.add();
    done.wait(0);
  }
  spread_.finish();
  if (job_.stage == Stage::kFirst)
    handoff_.trace = std::move(trace_);
  else if (plan_.decodes && plan_.pictures.count > 0)
    trace_.write(job_.spec.output.trace, job_.spec.output.overwrite);
  const comm::Use* const exchanged = spread_.use();
  const std::uint64_t buffers = exchanged != nullptr ? exchanged->peak_device_bytes() : 0;
  report_.ranks.push_back({.rank = job_.rank,
                           .device = {},
                           .device_id = {},
                           .held_s = now_s() - job_.started_s,
                           .peak_device_bytes = (holds ? peak_device_bytes(device_) : 0) + buffers,
                           .peak_host_bytes = peak_host_bytes(),
                           .bytes_read = bytes_read_,
                           .bytes_sent = exchanged != nullptr ? exchanged->bytes_sent() : 0,
                           .waited_s = waited_s_,
                           .host_bound_s = host_bound_s_});
}

void RankRun::settle() {
  synchronise(device_);
}

std::unique_ptr<nn::Weights> RankRun::load(const std::string& component) {
  job_.stop.check();
  std::uint64_t bytes = 0;
  std::unique_ptr<nn::Weights> weights = loader_.load(component, bytes);
  bytes_read_ += bytes;
  return weights;
}

Networks RankRun::load_networks() {
  const c10::InferenceMode no_gradients;  // counts for one thread
  Networks networks;
  networks.start_s = now_s();
  networks.denoiser = load(parallel::denoiser_of(job_.model).component);
  if (plan_.pictures.count > 0 && job_.stage != Stage::kFirst) networks.vae = load("vae");
  networks.end_s = now_s();
  return networks;
}

void RankRun::encode_new_prompts() {
  const std::int64_t length = job_.spec.sampling.max_sequence_length;
  embeddings_ = resident_.embeddings.find(prompts_, length, device_);
  if (embeddings_.size() < prompts_.size()) encode_prompts();
  if (!job_.last) resident_.embeddings.keep(embeddings_, length);
}

void RankRun::encode_prompts() {
  std::set<Prompt> unknown;
  for (const Prompt& prompt : prompts_)
    if (!embeddings_.contains(prompt)) unknown.insert(prompt);
  ids_ = tokenise(job_.model, unknown, job_.spec.sampling.max_sequence_length,
                  [this](std::string_view line) { listener_.warn(line); });
  const double start = now_s();
  listener_.begin("load", 0);
  EncoderWeights weights;
  for (const models::TextEncoder& encoder : job_.model.text_encoders)
    weights[encoder.component] = load(encoder.component);
  listener_.finish();
  const double loaded = now_s();
  report_.phases.push_back(phase("load_encoders", start, loaded));

  listener_.begin("text_encode", 0);
  embeddings_.merge(encode(job_.model, weights, ids_, device_));
  Marks marks(device_);
  marks.add();
  report_.phases.push_back(phase("text_encode", loaded, marks.at_s(0)));
  weights.clear();  // encoders leave the device before the denoiser runs
  release_cached_memory(device_);
  listener_.finish();
}

void RankRun::share_prompts() {
  std::set<Prompt> mine;
  for (std::int64_t i = 0; i < plan_.pictures.count; ++i)
    mine.insert({pictures_.at(static_cast<std::size_t>(plan_.pictures.first + i)).prompt});
  if (guided_) mine.insert(negative_of(job_.spec));
  if (comm::Group* world = spread_.world()) {
    const auto& encoders = job_.model.text_encoders;
    const bool pooled = std::any_of(encoders.begin(), encoders.end(), [](const auto& e) { return e.pooled; });
    parallel::TensorBroadcast broadcast(*world, at::TensorOptions().dtype(dtype_).device(device_));
    for (const Prompt& prompt : prompts_) {
      models::PromptEmbedding& embedding = embeddings_[prompt];
      embedding.tokens = broadcast(embedding.tokens);
      if (pooled) embedding.pooled = broadcast(embedding.pooled);
      if (!mine.contains(prompt)) embeddings_.erase(prompt);
    }
  }
}

const models::Branch& RankRun::branch(models::Denoiser& denoiser, const Prompt& prompt) {
  std::unique_ptr<models::Branch>& prepared = branches_[prompt];
  if (!prepared) {
    const std::vector<double> sizes = size_ids(job_.spec, job_.model, prompt.negative);
    prepared = denoiser.prepare(embeddings_.at(prompt),
                                {.timesteps = sampler_->timesteps(),
                                 .guidance = job_.spec.sampling.guidance,
                                 .size_ids = sizes,
                                 .latent_rows = job_.spec.image.height / job_.model.shape.latent_scale,
                                 .latent_columns = job_.spec.image.width / job_.model.shape.latent_scale,
                                 .text = {plan_.text_tokens.first, plan_.text_tokens.count},
                                 .image = image_});
  }
  return *prepared;
}

}  // namespace xdit::pipeline
