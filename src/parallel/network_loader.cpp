#include "parallel/network_loader.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "parallel/device_destination.h"
#include "parallel/plan_weights.h"
#include "parallel/quantised_weights.h"
#include "parallel/sharded_weights.h"

namespace xdit::parallel {
namespace {

constexpr std::int64_t kThreads = 16;  // page cache to GPU: 6 GB/s with one thread, 39 GB/s with 16

std::int64_t turn_bytes(at::Device device) {
  return std::int64_t{device.is_cuda() ? 64 : 4} << 20U;
}

}  // namespace

NetworkLoader::NetworkLoader(const Plan& plan, const RankPlan& rank, const models::Model& model,
                             Spread& spread, const at::TensorOptions& options, bool shared)
    : plan_(plan), rank_(rank), model_(model), spread_(spread), options_(options) {
  if (!shared) return;
  const std::int64_t bytes = turn_bytes(options.device());
  if (comm::Group* group = spread.block_readers()) blocks_.emplace(*group, bytes);
  if (comm::Group* group = spread.outside_readers()) outside_.emplace(*group, bytes);
  if (comm::Group* group = spread.readers()) others_.emplace(*group, bytes);
}

void NetworkLoader::exchange(std::optional<WeightExchange>& with, const std::vector<Range>& stored,
                             const Readers& readers, const WeightMemory& memory,
                             const at::TensorOptions& options) {
  if (!with || readers.ranks.size() < 2) return;
  std::vector<std::vector<Range>> shares;
  for (std::size_t i = 0; i < readers.ranks.size(); ++i)
    shares.push_back(shared_out(stored, readers.shares, i));
  with->exchange(shares, memory, options);
}

void NetworkLoader::read_share(const Loading& loading, const WeightMemory& memory) {
  if (model_.dummy) {
    draw(loading, memory);
    return;
  }
  std::uint64_t bytes = 0;
  read(loading, reads_of(plan_, rank_, loading.network), memory, bytes);
  bytes_read_ += bytes;
}

void NetworkLoader::exchange_shares(const Loading& loading, const WeightMemory& memory) {
  if (model_.dummy) return;
  const models::Network& network = loading.network;
  const LoadingStream stream(loading.device);
  const Storage storage = storage_of(plan_, rank_, network);
  const bool is_denoiser = network.role == models::Role::kDenoiser;
  const at::TensorOptions options = options_.dtype(loading.dtype);
  exchange(is_denoiser ? outside_ : others_, storage.outside, rank_.readers.at(network.component), memory,
           options);
  if (is_denoiser) exchange(blocks_, storage.blocks, rank_.block_readers, memory, options);
  stream.synchronise();
}

NetworkLoader::Arriving NetworkLoader::expect(const std::string& component) {
  // What filling needs and the weights do not.
  struct State {
    std::vector<HeldParameter> held;
    WeightMemory memory;
    std::optional<QuantisedWeights> quantised;
  };
  const models::Network& network = network_of(model_, component);
  const auto state = std::make_shared<State>();
  state->held = held_by(plan_, rank_, network);
  const at::ScalarType dtype = held_dtype(network, options_.dtype().toScalarType());
  const Loading loading{model_, network, state->held, dtype, options_.device(), kThreads};
  const auto read = [this, state, loading] { read_share(loading, state->memory); };
  if (network.role != models::Role::kDenoiser || spread_.sharding() == nullptr) {
    Tensors tensors = allocate(loading, /*sharded=*/false, state->memory);
    state->quantised.emplace(plan_, loading, tensors);
    const auto exchange = [this, state, loading] {
      exchange_shares(loading, state->memory);
      if (state->quantised->empty()) return;
      const LoadingStream stream(loading.device);
      state->quantised->quantise();
      stream.synchronise();
      state->quantised.reset();
      state->memory = {};
    };
    return {std::make_unique<nn::ResidentWeights>(std::move(tensors)), read, exchange};
  }
  auto weights = std::make_unique<ShardedWeights>(*spread_.sharding(), state->held, rank_.blocks, options_);
  weights->set_outside(allocate(loading, /*sharded=*/true, state->memory));
  weights->add_to(state->memory);
  const auto store = [this, state, loading, to = weights.get()] {
    exchange_shares(loading, state->memory);
    to->stored();
  };
  return {std::move(weights), read, store};
}

}  // namespace xdit::parallel
