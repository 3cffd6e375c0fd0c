#include "parallel/network_loader.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "parallel/device_destination.h"
#include "parallel/plan_weights.h"
#include "parallel/sharded_weights.h"

namespace xdit::parallel {
namespace {

constexpr std::int64_t kThreads = 16;  // page cache to GPU: 6 GB/s with one thread, 39 GB/s with 16

std::int64_t turn_bytes(at::Device device) {
  return std::int64_t{device.is_cuda() ? 64 : 4} << 20U;
}

}  // namespace

NetworkLoader::NetworkLoader(const Plan& plan, const RankPlan& rank, const models::Model& model,
                             Spread& spread, const at::TensorOptions& options)
    : plan_(plan), rank_(rank), model_(model), spread_(spread), options_(options) {
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

void NetworkLoader::fill(const Loading& loading, const WeightMemory& memory, std::uint64_t& bytes_read) {
  if (model_.dummy) {
    draw(loading, memory);
    return;
  }
  const models::Network& network = loading.network;
  read(loading, reads_of(plan_, rank_, network), memory, bytes_read);
  const LoadingStream stream(loading.device);
  const Storage storage = storage_of(plan_, rank_, network);
  const bool is_denoiser = network.role == models::Role::kDenoiser;
  const at::TensorOptions options = options_.dtype(loading.dtype);
  exchange(is_denoiser ? outside_ : others_, storage.outside, rank_.readers.at(network.component), memory,
           options);
  if (is_denoiser) exchange(blocks_, storage.blocks, rank_.block_readers, memory, options);
  stream.synchronise();
}

std::unique_ptr<nn::Weights> NetworkLoader::load(const std::string& component, std::uint64_t& bytes_read) {
  const models::Network& network = network_of(model_, component);
  const std::vector<HeldParameter> held = held_by(plan_, rank_, network);
  const at::ScalarType dtype = held_dtype(network, options_.dtype().toScalarType());
  const Loading loading{model_, network, held, dtype, options_.device(), kThreads};
  WeightMemory memory;
  if (network.role != models::Role::kDenoiser || spread_.sharding() == nullptr) {
    Tensors tensors = allocate(loading, true, memory);
    fill(loading, memory, bytes_read);
    return std::make_unique<nn::ResidentWeights>(std::move(tensors));
  }
  auto weights = std::make_unique<ShardedWeights>(*spread_.sharding(), held, rank_.blocks, options_);
  Tensors outside = allocate(loading, false, memory);
  weights->add_to(memory);
  fill(loading, memory, bytes_read);
  weights->set_outside(std::move(outside));
  weights->stored();
  return weights;
}

}  // namespace xdit::parallel
