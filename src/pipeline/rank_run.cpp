#include "pipeline/rank_run.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <optional>
#include <set>
#include <utility>

#include "core/error.h"
#include "output/finish.h"
#include "parallel/load.h"
#include "parallel/plan_weights.h"
#include "pipeline/marks.h"

namespace xdit::pipeline {

at::Device device_of(const RankJob& job) {
  if (job.spec.runtime.device == config::Device::kCpu) return at::kCPU;
  const std::int64_t device = job.plan.ranks.at(static_cast<std::size_t>(job.rank)).device;
  return {at::kCUDA, static_cast<c10::DeviceIndex>(device)};
}

RankRun::RankRun(const RankJob& job, Listener& listener, output::Report& report, Resident& resident,
                 Handoff& handoff)
    : job_(job),
      plan_(job.plan.ranks.at(static_cast<std::size_t>(job.rank))),
      listener_(listener),
      report_(report),
      resident_(resident),
      handoff_(handoff),
      device_(device_of(job)),
      dtype_(parallel::torch_type(job.spec.model.dtype)),
      guided_(job.spec.sampling.cfg_scale > 1),
      trace_(job.stage == Stage::kSecond ? std::move(handoff.trace) : Trace(!job.spec.output.trace.empty())),
      vae_(models::read_vae_config(job.model.files.components.at("vae").config, "vae/config.json")),
      stayed_(resident.serve(job.plan)),
      spread_(resident.spread_for(spread_run())),
      loader_(job.plan, plan_, job.model, spread_, options(), !stayed_),
      pictures_(config::pictures(job.spec)) {
  const std::vector<config::RunSpec> variants = config::variants_of(job.spec);
  for (std::size_t i = 0; i < variants.size(); ++i) {
    try {
      courses_.try_emplace(i, job, variants[i]);
    } catch (const Error& error) {
      if (job.spec.variants.empty() || error.code() != ExitCode::kUsage) throw;
      faults_.emplace(i, error);
    }
  }
  for (const parallel::Range& band : plan_.image_tokens) image_.push_back({band.first, band.count});
  for (const config::Picture& picture : pictures_) prompts_.merge(prompts_of(picture));
}

at::TensorOptions RankRun::options() const {
  return at::TensorOptions().dtype(dtype_).device(device_);
}

std::int64_t RankRun::latents_of(std::int64_t pixels) const {
  return pixels / job_.model.shape.latent_scale;
}

const config::Picture& RankRun::my_picture(std::int64_t i) const {
  return pictures_.at(static_cast<std::size_t>(plan_.pictures.first + i));
}

std::set<Prompt> RankRun::prompts_of(const config::Picture& picture) const {
  if (faults_.contains(picture.variant)) return {};
  std::set<Prompt> prompts{Prompt{.text = picture.prompt}};
  if (guided_) prompts.insert(courses_.at(picture.variant).negative);
  return prompts;
}

output::Phase RankRun::phase(const std::string& name, double start_s, double end_s, std::int64_t picture,
                             std::int64_t step) const {
  return {name, start_s - job_.started_s, end_s - job_.started_s, job_.rank, picture, step};
}

void RankRun::run() {
  const bool holds = !plan_.networks.empty();
  const bool loads = holds && !stayed_;
  const bool encodes = plan_.encodes && meets_new_prompts();
  EncoderWeights encoders;  // outlive what fills them
  Networks networks;
  Arrivals encoders_here(loader_, job_.stop), networks_here(loader_, job_.stop);
  if (loads && plan_.overlap_loading) networks = expect_networks(networks_here);
  if (encodes) encoders = expect_encoders(encoders_here);
  if (!stayed_ && job_.plan.warms_up) warm_up(encoders, networks);
  if (encodes) encode_prompts(std::move(encoders), encoders_here);
  if (!plan_.encodes) listener_.begin("text_encode", 0);  // another rank's
  const double shared_from = now_s();
  share_prompts();
  if (job_.plan.exchanges()) report_.phases.push_back(phase("share_prompts", shared_from, now_s()));
  if (loads) {
    if (!plan_.overlap_loading) networks = expect_networks(networks_here);
    listener_.begin("load", 0);
    networks_here.wait();
    if (job_.plan.quantised) release_cached_memory(device_);  // what was read
    for (const auto& [begin, end] : networks_here.stretches())
      report_.phases.push_back(phase("load", begin, end));
    listener_.finish();
  }
  if (!stayed_) resident_.hold(std::move(networks), job_.plan);
  if (plan_.pictures.count > 0) make_pictures(resident_.networks);
  if (job_.stage != Stage::kFirst && plan_.decodes && plan_.pictures.count > 0 && trace_.enabled()) {
    const double start = now_s();
    trace_.write(job_.spec.output.trace, job_.spec.output.overwrite);
    report_.phases.push_back(phase("write_trace", start, now_s()));
  }
  const double last_s = job_.started_s + output::end_of(report_, job_.rank);
  if (holds) synchronise(device_);
  const double idle_s = now_s();
  if (job_.stage == Stage::kFirst) handoff_.trace = std::move(trace_);
  spread_.finish();  // last: from here on no rank fails by itself
  if (job_.stage != Stage::kFirst) {
    report_.phases.push_back(phase("finish.device", last_s, idle_s));
    report_.phases.push_back(phase("finish.peers", idle_s, now_s()));
  }
  note_peak();
  const comm::Use* const exchanged = spread_.use();
  report_.ranks.push_back({.rank = job_.rank,
                           .device = {},
                           .device_id = {},
                           .held_s = now_s() - job_.started_s,
                           .peak_device_bytes = peak_device_bytes_,
                           .peak_host_bytes = peak_host_bytes(),
                           .bytes_read = loader_.bytes_read(),
                           .bytes_sent = exchanged != nullptr ? exchanged->bytes_sent() - warm_up_bytes_ : 0,
                           .waited_s = waited_s_,
                           .host_bound_s = host_bound_s_});
}

void RankRun::settle() {
  synchronise(device_);
}

bool RankRun::meets_new_prompts() {
  const double start = now_s();
  embeddings_ = resident_.embeddings.find(prompts_, job_.spec.sampling.max_sequence_length, device_);
  report_.phases.push_back(phase("tokenise", start, now_s()));
  return embeddings_.size() < prompts_.size();
}

EncoderWeights RankRun::expect_encoders(Arrivals& arrivals) {
  std::set<Prompt> unknown;
  for (const Prompt& prompt : prompts_)
    if (!embeddings_.contains(prompt)) unknown.insert(prompt);
  const double start = now_s();
  ids_ = tokenise(job_.model, unknown, job_.spec.sampling.max_sequence_length,
                  [this](std::string_view line) { listener_.warn(line); });
  report_.phases.push_back(phase("tokenise", start, now_s()));
  EncoderWeights weights;
  for (const models::TextEncoder& encoder : job_.model.text_encoders)
    weights[encoder.component] = arrivals.expect(encoder.component);
  arrivals.start();
  return weights;
}

Networks RankRun::expect_networks(Arrivals& arrivals) {
  Networks networks;
  networks.denoiser = arrivals.expect(parallel::denoiser_of(job_.model).component);
  if (plan_.pictures.count > 0 && job_.stage != Stage::kFirst) networks.vae = arrivals.expect("vae");
  arrivals.start();
  return networks;
}

void RankRun::warm_up(const EncoderWeights& encoders, const Networks& networks) {
  const double start = now_s();
  double from = start;
  const auto over = [&](const char* part) {
    report_.phases.push_back(phase(part, from, now_s()));
    from = now_s();
  };
  listener_.begin("load", 0);
  if (networks.vae && plan_.latent_rows.count > 0 && !job_.plan.exchanges())
    spread_.spatial().convolutions()->expect(
        models::decoder_convolutions(vae_, plan_.latent_rows.count, latents_of(job_.spec.image.width)),
        device_);
  if (!encoders.empty()) {
    static_cast<void>(encode(job_.model, encoders, {*ids_.begin()}, device_));
    over("warm_up.encoders");
  }
  if (comm::Group* world = spread_.world()) {
    static_cast<void>(world->share({}));  // devices do not wait for files
    over("warm_up.peers");
  }
  if (plan_.pictures.count > 0 && !courses_.empty()) {
    const auto denoiser = make_denoiser(networks);
    const Course& course = courses_.begin()->second;
    PreparedPrompts prepared(job_, course, *denoiser, loop_shape(course));
    const models::Branch& blank =
        prepared.prepare({}, blank_embedding(job_.model, job_.spec.sampling.max_sequence_length, options()));
    const at::Tensor latents =
        at::zeros({job_.model.shape.latent_channels, latents_of(job_.spec.image.height),
                   latents_of(job_.spec.image.width)},
                  options());
    at::Tensor packed = mine(denoiser->pack(latents));
    static_cast<void>(spread_.all_tokens(spread_.loop().run(
        *denoiser, *course.sampler, spread_.guide(), guidance(prepared, blank, guided_ ? &blank : nullptr),
        {.latents = packed,
         .first = course.evaluations.first,
         .end = course.evaluations.first + 1,
         .draw = [&](schedulers::Draw) { return packed; }},
        [](std::int64_t, const at::Tensor&) {})));
    over("warm_up.denoiser");
    if (networks.vae && plan_.latent_rows.count > 0) {
      static_cast<void>(decode(models::VaeDecoder(vae_, *networks.vae), latents));
      over("warm_up.decoder");
    }
    if (const comm::Use* use = spread_.use()) warm_up_bytes_ = use->bytes_sent();
  }
  report_.phases.push_back(phase("warm_up", start, now_s()));
  listener_.finish();
}

void RankRun::encode_prompts(EncoderWeights encoders, Arrivals& arrivals) {
  listener_.begin("load", 0);
  arrivals.wait();
  listener_.finish();
  for (const auto& [begin, end] : arrivals.stretches())
    report_.phases.push_back(phase("load_encoders", begin, end));

  const double start = now_s();
  listener_.begin("text_encode", 0);
  embeddings_.merge(encode(job_.model, encoders, ids_, device_));
  Marks marks(device_);
  marks.add();
  const double encoded = marks.at_s(0);
  encoders.clear();  // they leave the device before the denoiser runs
  release_cached_memory(device_);
  note_peak();
  report_.phases.push_back(phase("text_encode.free", encoded, now_s()));
  if (!job_.last) resident_.embeddings.keep(embeddings_, job_.spec.sampling.max_sequence_length);
  report_.phases.push_back(phase("text_encode", start, now_s()));
  listener_.finish();
}

// Called when the encoders have gone, and at the end: peer buffers that come between, which the allocator
// does not count, were never beside the encoders.
void RankRun::note_peak() {
  const comm::Use* const exchanged = spread_.use();
  const std::uint64_t buffers = exchanged != nullptr ? exchanged->peak_device_bytes() : 0;
  const std::uint64_t own = plan_.networks.empty() ? 0 : take_peak_device_bytes(device_);
  peak_device_bytes_ = std::max(peak_device_bytes_, own + buffers);
}

void RankRun::share_prompts() {
  std::set<Prompt> mine;
  for (std::int64_t i = 0; i < plan_.pictures.count; ++i) mine.merge(prompts_of(my_picture(i)));
  if (comm::Group* world = spread_.world()) {
    const auto& encoders = job_.model.text_encoders;
    const bool pooled = std::any_of(encoders.begin(), encoders.end(), [](const auto& e) { return e.pooled; });
    parallel::TensorBroadcast broadcast(*world, options());
    for (const Prompt& prompt : prompts_) {
      models::PromptEmbedding& embedding = embeddings_[prompt];
      embedding.tokens = broadcast(embedding.tokens);
      if (pooled) embedding.pooled = broadcast(embedding.pooled);
      if (!mine.contains(prompt)) embeddings_.erase(prompt);
    }
  }
}

parallel::Spread::Run RankRun::spread_run() const {
  return {.plan = job_.plan,
          .rank = job_.rank,
          .model = job_.model,
          .vae = vae_,
          .branches = guided_ ? 2 : 1,
          .peers = job_.peers,
          .timeout = std::chrono::duration_cast<std::chrono::nanoseconds>(
              std::chrono::duration<double>(job_.spec.runtime.timeout_s)),
          .options = options()};
}

std::unique_ptr<models::Denoiser> RankRun::make_denoiser(const Networks& networks) {
  return models::make_denoiser(job_.model, {plan_.blocks.first, plan_.blocks.count}, *networks.denoiser,
                               spread_.linears(), spread_.attention(), spread_.patches(),
                               resident_.built.attentions);
}

models::LoopShape RankRun::loop_shape(const Course& course) const {
  return {.timesteps = course.sampler->timesteps(),
          .guidance = course.spec.sampling.guidance,
          .size_ids = {},
          .latent_rows = latents_of(job_.spec.image.height),
          .latent_columns = latents_of(job_.spec.image.width),
          .text = {plan_.text_tokens.first, plan_.text_tokens.count},
          .image = image_};
}

parallel::Guidance RankRun::guidance(PreparedPrompts& prepared, const models::Branch& positive,
                                     const models::Branch* negative) {
  parallel::Guidance of = prepared.guidance(positive, negative);
  of.whole = [this](const at::Tensor& part) { return spread_.all_tokens(part); };
  return of;
}

at::Tensor RankRun::mine(const at::Tensor& all) const {
  std::vector<at::Tensor> parts;
  for (const models::TokenRange& range : image_) parts.push_back(all.narrow(0, range.first, range.count));
  return at::cat(parts);
}

}  // namespace xdit::pipeline
