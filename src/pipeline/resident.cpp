#include "pipeline/resident.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

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

bool Resident::fit(const parallel::Plan& next) {
  const Sizes sizes{next.image_tokens, next.image_columns, next.mesh};
  const std::optional<Sizes> before = std::exchange(sizes_, sizes);
  const bool others = before && *before != sizes;
  if (others) let_denoiser_go();
  if (others && built.count() > kBuiltKernels) built = {};  // those of this job stay with it
  return others;
}

void Resident::let_denoiser_go() {
  replays.clear();
  standing.reset();
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
  if (!plan.keeps_weights()) drop();
}

}  // namespace xdit::pipeline
