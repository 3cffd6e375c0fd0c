#include "parallel/spread.h"

#include <algorithm>
#include <utility>

#include "comm/device_memory.h"
#include "comm/host_memory.h"
#include "comm/pinned_memory.h"
#include "comm/relayed_memory.h"
#include "core/error.h"
#include "parallel/device_stream.h"
#include "parallel/displaced_rows.h"
#include "parallel/load.h"
#include "parallel/pipefusion.h"
#include "parallel/plan_weights.h"
#include "parallel/ring_attention.h"
#include "parallel/split_attention.h"
#include "parallel/tensor_linear.h"

namespace xdit::parallel {
namespace {

using comm::Axis;

TokenSplit split_of(const Plan& plan, const std::vector<int>& members) {
  TokenSplit split{.ulysses = plan.mesh.ulysses, .text = {}, .image = {}};
  for (const int member : members) {
    const RankPlan& rank = plan.ranks.at(static_cast<std::size_t>(member));
    split.text.push_back(rank.text_tokens);
    split.image.push_back(rank.image_tokens);
  }
  return split;
}

// Null where one rank decodes the picture by itself.
std::unique_ptr<SplitSpatial> slabs_of(const Plan& plan, comm::Group& group, const models::Shape& shape,
                                       const models::VaeConfig& vae, const at::TensorOptions& options,
                                       std::shared_ptr<nn::Convolutions> convolutions) {
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
      group, slabs, slab_bytes(vae, rows, columns, static_cast<std::int64_t>(options.dtype().itemsize())),
      std::move(convolutions));
}

at::ScalarType decoder_dtype(const Spread::Run& run) {
  return held_dtype(network_of(run.model, "vae"), run.options.dtype().toScalarType());
}

// A decoder in float32 beside activations of 16 bits wants float32's range, not all of its precision.
std::shared_ptr<nn::Convolutions> decoder_convolutions(const Spread::Run& run) {
  const bool wider = decoder_dtype(run) == at::kFloat && run.options.dtype().toScalarType() != at::kFloat;
  return wider ? run.built.rounding_convolutions : run.built.convolutions;
}

std::shared_ptr<comm::PeerMemory> memory_of(const Spread::Run& run) {
  const auto rank = static_cast<int>(run.rank);
  const at::Device device = run.options.device();
  const bool direct = run.plan.transport == config::Transport::kPeer;
  if (!device.is_cuda() && direct) return std::make_shared<comm::HostMemory>(run.peers, rank, run.timeout);
  if (!device.is_cuda()) return std::make_shared<comm::RelayedMemory>(run.peers, rank, run.timeout);
  return direct ? comm::device_memory(run.peers, rank, device.index(), run.timeout)
                : comm::pinned_memory(run.peers, rank, device.index(), run.timeout);
}

}  // namespace

void Spread::make_groups(const Run& run) {
  const auto me = static_cast<int>(run.rank);
  const RankPlan& mine = run.plan.ranks.at(static_cast<std::size_t>(run.rank));
  const comm::Mesh mesh = run.plan.mesh.ranks();
  world_ = comm::Group::world(run.peers, me, run.timeout, memory_of(run));
  // Files and prompts may take as long as they like: a rank that is there says so to the launcher.
  patient_ =
      world_->split(0, std::make_shared<comm::HostMemory>(run.peers, me, std::chrono::nanoseconds::max()));
  const auto axes = [&](std::initializer_list<Axis> of) -> std::optional<comm::Group> {
    const std::vector<int> members = mesh.members(me, of);
    if (members.size() == 1) return std::nullopt;
    return world_->split(members.front());
  };
  tokens_ = axes({Axis::kTokens, Axis::kUlysses});
  branches_ = axes({Axis::kCfg});
  stages_ = axes({Axis::kPipefusion});
  tensor_ = axes({Axis::kTensor});
  const auto per_picture =
      static_cast<int>(run.plan.mesh.size() / run.plan.mesh.data);  // data varies slowest
  picture_ = world_->split(me / per_picture);
  slabs_ = slabs_of(run.plan, *picture_, run.model.shape, run.vae, run.options.dtype(decoder_dtype(run)),
                    decoder_convolutions(run));
  if (run.plan.shard > 1) sharding_ = world_->split(mine.sharding.front());
  if (run.model.dummy) return;
  const auto among = [&](const std::vector<int>& ranks) {
    return patient_->split(ranks.empty() ? -1 - me : ranks.front());
  };
  const auto readers = [&](const std::string& component) {
    const auto found = mine.readers.find(component);
    return among(found == mine.readers.end() ? std::vector<int>{} : found->second.ranks);
  };
  block_readers_ = among(mine.block_readers.ranks);
  outside_readers_ = readers(denoiser_of(run.model).component);
  readers_ = readers("vae");
}

void Spread::split_tokens(const Run& run) {
  const RankPlan& mine = run.plan.ranks.at(static_cast<std::size_t>(run.rank));
  const Mesh& mesh = run.plan.mesh;
  const models::Shape& shape = run.model.shape;
  const bool staged = mesh.pipefusion > 1;
  const TokenSplit split = split_of(run.plan, tokens_->members());
  const std::int64_t heads = shape.heads / mesh.tensor;
  const std::int64_t head_dim = shape.width / shape.heads;
  const std::int64_t branches = run.branches / mesh.cfg;
  if (mesh.ring > 1) {
    attention_ = std::make_unique<RingAttention>(*tokens_, split, heads, head_dim, run.options);
  } else {
    const KeptKeys kept = staged ? KeptKeys{mine.blocks, branches} : KeptKeys{};
    auto attention = std::make_unique<SplitAttention>(*tokens_, split, heads, head_dim, run.options, kept,
                                                      run.built.attentions);
    if (staged)
      loop_ = std::make_unique<PipefusionLoop>(*stages_, split, tokens_->rank(), *attention,
                                               PipefusionLoop::Shape{.width = shape.width,
                                                                     .channels = shape.token_channels,
                                                                     .branches = branches,
                                                                     .warmup = run.plan.warmup},
                                               run.options);
    attention_ = std::move(attention);
  }
  if (tokens_->size() > 1 || staged) gather_.emplace(*tokens_, split);
}

void Spread::split_rows(const Run& run) {
  const TokenSplit split = split_of(run.plan, tokens_->members());
  const std::int64_t columns = run.plan.image_columns;
  std::vector<comm::Range> rows;
  for (const std::vector<Range>& tokens : split.image)
    rows.push_back({tokens.front().first / columns, tokens.front().count / columns});
  const auto element_bytes = static_cast<std::int64_t>(run.options.dtype().itemsize());
  const std::int64_t all_rows = run.plan.image_tokens / columns;
  const models::UnetConfig config = unet_of(run.model);
  if (run.plan.displaced) {
    const auto displaced = std::make_shared<DisplacedRows>(
        *tokens_, rows.at(static_cast<std::size_t>(tokens_->rank())).count > 0,
        row_exchanges(config, all_rows, columns, element_bytes), run.branches / run.plan.mesh.cfg);
    loop_ = std::make_unique<SerialLoop>(
        [displaced](std::int64_t branch, bool warm) { displaced->begin(branch, warm); }, run.plan.warmup);
    patches_ = std::make_unique<SplitSpatial>(*tokens_, rows, displaced, run.built.convolutions);
  } else {
    patches_ = std::make_unique<SplitSpatial>(
        *tokens_, rows, slab_bytes(config, all_rows, columns, element_bytes), run.built.convolutions);
  }
  gather_.emplace(*tokens_, split);
}

const nn::Spatial& Spread::spatial() const {
  if (slabs_) return *slabs_;
  return whole_;
}

Spread::Spread(const Run& run) : whole_(decoder_convolutions(run)) {
  if (run.peers) make_groups(run);
  const RankPlan& mine = run.plan.ranks.at(static_cast<std::size_t>(run.rank));
  const Mesh& mesh = run.plan.mesh;
  linears_ = std::make_unique<nn::LocalLinears>();
  attention_ = std::make_unique<nn::LocalAttention>(run.built.attentions);
  guide_ = std::make_unique<LocalGuide>();
  loop_ = std::make_unique<SerialLoop>();
  patches_ = std::make_unique<nn::LocalSpatial>(run.built.convolutions);
  if (mine.pictures.count == 0) return;  // so are all ranks of these groups

  if (mesh.pipefusion > 1 && !tokens_)
    tokens_ = stages_->split(stages_->rank());  // each stage holds all tokens
  if (tokens_ && run.model.shape.by_rows) split_rows(run);
  if (tokens_ && !run.model.shape.by_rows) split_tokens(run);
  if (tensor_) {
    std::int64_t rows = mine.text_tokens.count;
    for (const Range& band : mine.image_tokens) rows += band.count;
    linears_ = std::make_unique<TensorLinears>(*tensor_, denoiser_of(run.model), rows, run.options);
  }
  if (branches_) guide_ = std::make_unique<SplitGuide>(*branches_);
}

void Spread::finish() {
  if (patient_) static_cast<void>(patient_->share({}));
}

}  // namespace xdit::parallel
