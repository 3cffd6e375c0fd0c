#include "pipeline/resident.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "pipeline/marks.h"

namespace xdit::pipeline {
namespace {

constexpr std::size_t kKeptPrompts = 1024;  // 4 MB each for FLUX.1
constexpr std::size_t kBuiltKernels = 500;  // of some sizes: a UNet and its decoder have 70

models::PromptEmbedding on(at::Device device, const models::PromptEmbedding& embedding) {
  models::PromptEmbedding moved = embedding;
  for (at::Tensor* tensor : {&moved.tokens, &moved.pooled})
    if (tensor->defined()) *tensor = tensor->to(device);
  return moved;
}

bool same_slices(const parallel::Mesh& a, const parallel::Mesh& b) {
  return (a.tensor == 1 && b.tensor == 1) || a == b;
}

// A rank that `next` leaves idle may hold anything.
bool same_networks(const parallel::RankPlan& held, const parallel::RankPlan& next) {
  if (next.networks.empty()) return true;
  return !held.networks.empty() && held.pictures.count > 0 && next.pictures.count > 0 &&
         held.blocks.first == next.blocks.first && held.blocks.count == next.blocks.count;
}

bool same_picture(const parallel::Plan& a, const parallel::Plan& b) {
  const auto picture = [](const parallel::Plan& of) {
    return std::tie(of.image_tokens, of.image_columns, of.mesh);
  };
  return picture(a) == picture(b);
}

// Neither the number of a rank's pictures nor their places in the run matter.
bool same_part(const parallel::RankPlan& a, const parallel::RankPlan& b) {
  const auto part = [](const parallel::RankPlan& of) {
    return std::tie(of.device, of.text_tokens, of.image_tokens, of.blocks, of.sharding, of.block_readers,
                    of.readers, of.latent_rows);
  };
  return part(a) == part(b) && (a.pictures.count > 0) == (b.pictures.count > 0);
}

bool same_exchange(const parallel::Plan& a, const parallel::Plan& b) {
  const auto exchange = [](const parallel::Plan& of) {
    return std::tie(of.text_tokens, of.displaced, of.warmup, of.shard, of.transport);
  };
  return exchange(a) == exchange(b) && std::ranges::equal(a.ranks, b.ranks, same_part);
}

}  // namespace

KeptEmbeddings::Map KeptEmbeddings::find(const std::set<Prompt>& prompts, std::int64_t length,
                                         at::Device device) const {
  Map found;
  if (length != length_) return found;
  for (const auto& [prompt, embedding] : kept_)
    if (prompts.contains(prompt)) found.emplace(prompt, on(device, embedding));
  return found;
}

void KeptEmbeddings::keep(const Map& embeddings, std::int64_t length) {
  if (length != length_ || kept_.size() + embeddings.size() > kKeptPrompts) kept_.clear();
  length_ = length;
  for (const auto& [prompt, embedding] : embeddings)
    if (!kept_.contains(prompt)) kept_.emplace(prompt, on(at::kCPU, embedding));
}

parallel::Spread& Resident::spread_for(parallel::Spread::Run next) {
  Origin of{.plan = next.plan,
            .branches = next.branches,
            .peers = next.peers,
            .renewals = next.peers ? next.peers->renewals() : 0};
  const bool alike = spread && same_picture(origin_->plan, of.plan) && origin_->peers == of.peers &&
                     (!of.peers || (origin_->renewals == of.renewals && origin_->branches == of.branches &&
                                    same_exchange(origin_->plan, of.plan)));
  if (alike) {
    if (comm::Use* use = spread->use()) use->restart();
    return *spread;
  }
  let_spread_go();
  release_cached_memory(next.options.device());
  if (built.count() > kBuiltKernels) built = {};
  next.built = built;
  spread = std::make_unique<parallel::Spread>(next);
  origin_ = std::move(of);
  return *spread;
}

void Resident::let_denoiser_go() {
  replays.clear();
  denoiser.reset();
}

void Resident::let_spread_go() {
  let_denoiser_go();
  spread.reset();
}

void Resident::drop() {
  let_denoiser_go();
  networks = {};
  loaded_.reset();
}

bool Resident::serve(const parallel::Plan& next) {
  const bool same = loaded_ && next.keeps_weights() && same_slices(loaded_->mesh, next.mesh) &&
                    std::equal(loaded_->ranks.begin(), loaded_->ranks.end(), next.ranks.begin(),
                               next.ranks.end(), same_networks);
  if (!same) drop();
  return same;
}

void Resident::hold(Networks loaded, const parallel::Plan& plan) {
  let_denoiser_go();
  networks = std::move(loaded);
  loaded_ = plan;
}

void Resident::release(const parallel::Plan& plan) {
  if (plan.keeps_weights()) return;
  drop();
  spread.reset();
}

}  // namespace xdit::pipeline
