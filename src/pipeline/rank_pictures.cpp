#include <ATen/ATen.h>

#include <algorithm>
#include <future>
#include <optional>
#include <utility>

#include "core/error.h"
#include "parallel/loop.h"
#include "parallel/replayed_denoiser.h"
#include "pipeline/marks.h"
#include "pipeline/picture.h"
#include "pipeline/rank_run.h"
#include "pipeline/write_picture.h"

namespace xdit::pipeline {
namespace {

constexpr std::size_t kPreparedPrompts = 8;  // at once; 60 MB each for FLUX.1 in 28 steps

// Of a step: a device that is done with it so soon after the host has queued it has waited for the host.
constexpr double kAtOnce = 0.1;

}  // namespace

void RankRun::make_pictures(const Networks& networks) {
  const double begun_s = now_s();
  const bool alone = job_.last && !resident_.denoiser;  // no job before or after it has the denoiser
  if (!resident_.denoiser) resident_.denoiser = make_denoiser(networks);
  parallel::ReplayedDenoiser replayed(*resident_.denoiser, spread_.use(), resident_.replays);
  models::Denoiser& denoiser = job_.plan.replays ? replayed : *resident_.denoiser;
  std::map<std::size_t, PreparedPrompts> prepared;  // by variant
  const auto prepared_of = [&](std::size_t variant) -> PreparedPrompts& {
    const Course& course = courses_.at(variant);
    return prepared.try_emplace(variant, job_, course, denoiser, loop_shape(course)).first->second;
  };
  std::optional<models::VaeDecoder> decoder;
  if (networks.vae) decoder.emplace(vae_, *networks.vae);
  std::set<std::pair<std::size_t, Prompt>> wanted;
  for (std::int64_t i = 0; i < plan_.pictures.count; ++i)
    for (const Prompt& prompt : prompts_of(my_picture(i))) wanted.emplace(my_picture(i).variant, prompt);
  const bool at_once = wanted.size() <= kPreparedPrompts;
  if (at_once) {
    for (const auto& [variant, prompt] : wanted) prepared_of(variant).prepare(prompt, embeddings_.at(prompt));
    if (job_.last) denoiser.prepared_all();
  }

  prepared_from_s_ = begun_s;
  std::future<output::Phase> writing;  // of the picture before, on a thread of its own
  const auto collect = [&] {
    if (!writing.valid()) return;
    report_.phases.push_back(writing.get());
    listener_.picture(report_.phases.back().picture);
  };
  const auto make = [&](std::int64_t i) {
    const config::Picture& picture = my_picture(i);
    job_.stop.check();
    const auto fault = faults_.find(picture.variant);
    const bool open = job_.stage != Stage::kSecond || handoff_.pictures.contains(picture.index);
    if (fault != faults_.end()) {
      handoff_.pictures.erase(picture.index);
      if (open && plan_.decodes) listener_.failed(picture.index, fault->second);
    }
    if (fault != faults_.end() || !open) return;
    if (!at_once) prepared.clear();
    const at::Tensor latents = denoise(denoiser, prepared_of(picture.variant), picture);
    if (i + 1 == plan_.pictures.count) {  // the decoder may want their memory
      prepared.clear();
      if (alone) resident_.replays.clear();
    }
    if (!decoder || plan_.latent_rows.count == 0) return;
    const at::Tensor image = decode_timed(*decoder, latents, picture.index);
    if (!image.defined()) return;
    trace_.add("image", image);
    collect();
    writing = std::async(std::launch::async, [this, &picture, image] {
      const double start = now_s();
      write_picture(job_, courses_.at(picture.variant), picture, image);
      return phase("write", start, now_s(), picture.index);
    });
  };
  try {
    for (std::int64_t i = 0; i < plan_.pictures.count; ++i) {
      make(i);
      prepared_from_s_ = now_s();
    }
  } catch (...) {
    collect();  // the one before is whole
    throw;
  }
  if (!writing.valid()) return;
  listener_.begin("write", 0);  // of the last one; others are written during the next one's steps
  collect();
  listener_.finish();
}

at::Tensor RankRun::denoise(models::Denoiser& denoiser, PreparedPrompts& prepared,
                            const config::Picture& picture) {
  const Course& course = courses_.at(picture.variant);
  const schedulers::Sampler& sampler = *course.sampler;
  const std::int64_t rows = latents_of(job_.spec.image.height);
  const std::int64_t columns = latents_of(job_.spec.image.width);
  const bool begins = job_.stage != Stage::kSecond;
  if (begins) {
    PictureNoise fresh(picture.seed, job_.model.shape.latent_channels, rows, columns);
    handoff_.pictures.insert_or_assign(picture.index,
                                       Handoff::Picture{.latents = {}, .noise = std::move(fresh)});
  }
  Handoff::Picture& handed = handoff_.pictures.at(picture.index);
  const at::Tensor first =
      begins ? denoiser.pack(handed.noise.draw(course.drawn)).to(device_, dtype_) : handed.latents;
  const parallel::Start start{.latents = begins ? sampler.begin(mine(first)) : mine(first),
                              .first = course.evaluations.first,
                              .end = course.evaluations.first + course.evaluations.count,
                              .draw = [&](schedulers::Draw draw) {
                                const at::ScalarType type =
                                    draw == schedulers::Draw::kFloat32 ? at::kFloat : course.drawn;
                                return mine(denoiser.pack(handed.noise.draw(type))).to(device_);
                              }};
  const Prompt prompt{picture.prompt};
  const auto branch = [&](const Prompt& of) -> const models::Branch& {
    return prepared.prepare(of, embeddings_.at(of));
  };
  const parallel::Guidance of =
      guidance(prepared, branch(prompt), guided_ ? &branch(course.negative) : nullptr);
  trace_prompt(prompt);
  if (guided_) trace_prompt(course.negative);
  const auto shown = [&](const at::Tensor& packed) { return denoiser.as_diffusers(packed, rows, columns); };
  if (begins) trace_.add("noise", shown(first));

  listener_.begin("denoise", course.evaluations.count);
  Marks marks(device_);
  marks.add();
  report_.phases.push_back(phase("prepare", prepared_from_s_, marks.at_s(0), picture.index));
  const auto waited = [&] { return spread_.world() != nullptr ? spread_.world()->waited_s() : 0; };
  const double waited_before_s = waited();
  at::Tensor before = course.preview.enabled() ? start.latents : at::Tensor();
  const at::Tensor latents = spread_.loop().run(
      denoiser, sampler, spread_.guide(), of, start, [&](std::int64_t step, const at::Tensor& now) {
        job_.stop.check();
        marks.add();
        if (trace_.enabled() && now.defined())
          trace_.add("latents." + std::to_string(course.evaluations.first + step),
                     shown(spread_.all_tokens(now)));
        if (const std::int64_t made = course.evaluations.first + step;
            now.defined() && course.preview.due(made)) {
          const at::Tensor all = spread_.all_tokens(course.preview.towards(made - 1, before, now));
          if (plan_.decodes) show(course, denoiser.unpack(all, rows, columns), picture.index);
        }
        if (course.preview.enabled()) before = now;
        // One step ahead of the device at most: progress stays true and a stop takes effect.
        marks.wait(marks.count() - 2);
        spread_.check();
        listener_.advance(step - 1);
      });
  if (marks.queued()) host_bound_s_ = std::max(host_bound_s_, 0.0);
  for (std::size_t i = 1; i < marks.count(); ++i) {
    const double begin_s = marks.at_s(i - 1);
    const double end_s = marks.at_s(i);
    report_.phases.push_back(phase("step", begin_s, end_s, picture.index,
                                   course.evaluations.first + static_cast<std::int64_t>(i)));
    if (marks.queued() && end_s - marks.added_s(i) < kAtOnce * (end_s - begin_s))
      host_bound_s_ += end_s - begin_s;
  }
  const double stepped_s = marks.at_s(marks.count() - 1);
  stepped_s_ = std::min(stepped_s, now_s());  // a GPU's clock is its own
  waited_s_ = std::max(waited_s_, 0.0) + waited() - waited_before_s;
  listener_.advance(course.evaluations.count);
  listener_.finish();
  const at::Tensor all = spread_.all_tokens(latents);
  if (job_.stage == Stage::kFirst)
    handed.latents = all;
  else
    handoff_.pictures.erase(picture.index);
  return denoiser.unpack(all, rows, columns);
}

void RankRun::show(const Course& course, const at::Tensor& latents, std::int64_t picture) {
  if (std::exchange(previews_fail_, true)) return;
  try {
    course.preview.write(latents, job_.previews.at(picture));
    previews_fail_ = false;
  } catch (const Error& error) {
    listener_.warn(std::string("no more previews: ") + error.what());
  }
}

at::Tensor RankRun::decode(const models::VaeDecoder& decoder, const at::Tensor& latents) {
  const at::Tensor slab = latents.narrow(1, plan_.latent_rows.first, plan_.latent_rows.count).unsqueeze(0);
  return spread_.whole_picture(decoder.decode_scaled(slab, spread_.spatial()).squeeze(0));
}

at::Tensor RankRun::decode_timed(const models::VaeDecoder& decoder, const at::Tensor& latents,
                                 std::int64_t picture) {
  const double start = now_s();
  report_.phases.push_back(phase("decode.latents", stepped_s_, start, picture));
  listener_.begin("decode", 0);
  const at::Tensor decoded = decode(decoder, latents);
  Marks marks(device_);
  marks.add();
  const double decoded_s = marks.at_s(0);
  spread_.check();
  at::Tensor image;
  if (plan_.decodes) {
    image = finished(decoded, picture);
    report_.phases.push_back(phase("decode.to_host", decoded_s, now_s(), picture));
  }
  report_.phases.push_back(phase("decode", stepped_s_, plan_.decodes ? now_s() : decoded_s, picture));
  listener_.finish();
  return image;
}

at::Tensor RankRun::finished(const at::Tensor& decoded, std::int64_t picture) {
  try {
    return finished_picture(decoded);
  } catch (const Error& error) {
    if (job_.spec.listed.empty()) throw;
    listener_.failed(picture, error);
    return {};
  }
}

void RankRun::trace_prompt(const Prompt& prompt) {
  if (!trace_.enabled() || !plan_.decodes) return;
  const std::string stage = job_.stage == Stage::kSecond ? "refiner_" : "";
  const std::string prefix = stage + (prompt.negative ? "negative_" : "");
  const models::PromptEmbedding& embedding = embeddings_.at(prompt);
  trace_.add(prefix + "prompt_embeds", embedding.tokens);
  if (embedding.pooled.defined()) trace_.add(prefix + "pooled_prompt_embeds", embedding.pooled);
  for (std::size_t i = 0; i < job_.model.text_encoders.size() && !prompt.negative; ++i)
    trace_.add(stage + job_.model.text_encoders[i].ids, ids_.at(prompt)[i]);
}

}  // namespace xdit::pipeline
