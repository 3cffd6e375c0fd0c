#include "parallel/spread.h"

#include "core/error.h"
#include "parallel/split_attention.h"

namespace xdit::parallel {
namespace {

TokenSplit split_of(const Plan& plan, const std::vector<int>& members) {
  TokenSplit split{.text = {}, .image = {}, .ulysses = plan.mesh.ulysses};
  for (const int member : members) {
    const RankPlan& rank = plan.ranks.at(static_cast<std::size_t>(member));
    split.text.push_back({rank.text_tokens.first, rank.text_tokens.count});
    split.image.push_back({rank.image_tokens.first, rank.image_tokens.count});
  }
  return split;
}

// Null where one rank decodes the picture by itself.
std::unique_ptr<SplitSpatial> slabs_of(const Plan& plan, comm::Group& group, const models::Shape& shape,
                                       const models::VaeConfig& vae, const at::TensorOptions& options) {
  std::vector<comm::Range> slabs;
  std::int64_t rows = 0;
  for (const int member : group.members()) {
    const Range& slab = plan.ranks.at(static_cast<std::size_t>(member)).latent_rows;
    slabs.push_back({slab.first, slab.count});
    rows += slab.count;
  }
  if (slabs.front().count == rows) return nullptr;
  XDIT_ASSERT(rows > 0);
  const std::int64_t side = shape.pixels_per_token / shape.latent_scale;  // of a token, in latents
  const std::int64_t columns = plan.image_tokens * side * side / rows;
  return std::make_unique<SplitSpatial>(
      group, slabs, slab_bytes(vae, rows, columns, static_cast<std::int64_t>(options.dtype().itemsize())));
}

}  // namespace

Spread::Spread(const Plan& plan, std::int64_t rank, const models::Shape& shape, const models::VaeConfig& vae,
               const std::shared_ptr<const comm::Job>& peers, std::chrono::nanoseconds timeout,
               const at::TensorOptions& options) {
  const comm::Mesh mesh = plan.mesh.ranks();
  const auto me = static_cast<int>(rank);
  if (peers) {
    world_ = comm::Group::world(peers, me, timeout);
    tokens_ = world_->split(mesh.members(me, {comm::Axis::kTokens, comm::Axis::kUlysses}).front());
    branches_ = world_->split(mesh.members(me, {comm::Axis::kCfg}).front());
    const auto ranks = static_cast<int>(plan.mesh.size() / plan.mesh.data);
    picture_ = world_->split(me / ranks);  // data varies slowest
    slabs_ = slabs_of(plan, *picture_, shape, vae, options);
  }
  if (tokens_ && tokens_->size() > 1) {
    const TokenSplit split = split_of(plan, tokens_->members());
    attention_ =
        std::make_unique<SplitAttention>(*tokens_, split, shape.heads, shape.width / shape.heads, options);
    gather_.emplace(*tokens_, split.image);
  } else {
    attention_ = std::make_unique<nn::LocalAttention>();
  }
  if (branches_ && branches_->size() > 1)
    guide_ = std::make_unique<SplitGuide>(*branches_);
  else
    guide_ = std::make_unique<LocalGuide>();
}

}  // namespace xdit::parallel
