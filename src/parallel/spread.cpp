#include "parallel/spread.h"

#include "comm/device_memory.h"
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

}  // namespace

Spread::Spread(const Plan& plan, std::int64_t rank, const models::Shape& shape,
               const std::shared_ptr<const comm::Job>& peers, std::chrono::nanoseconds timeout,
               const at::TensorOptions& options) {
  const comm::Mesh mesh = plan.mesh.ranks();
  const auto me = static_cast<int>(rank);
  if (peers) {
    const at::Device device = options.device();
    world_ = comm::Group::world(
        peers, me, timeout,
        device.is_cuda() ? comm::device_memory(peers, me, device.index(), timeout) : nullptr);
    tokens_ = world_->split(mesh.members(me, {comm::Axis::kTokens, comm::Axis::kUlysses}).front());
    branches_ = world_->split(mesh.members(me, {comm::Axis::kCfg}).front());
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
