#include "parallel/plan_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/error.h"
#include "parallel/plan_parameters.h"
#include "parallel/plan_rows.h"

namespace xdit::parallel {
namespace {

constexpr std::uint64_t kContextBytes = std::uint64_t{1} << 30U;  // CUDA context, cuBLAS and cuDNN workspaces

using models::Role;

bool shards_weights(const Plan& plan, const models::Network& network) {
  return network.role == Role::kDenoiser && plan.shard > 1;
}

std::int64_t place_of(const std::vector<int>& ranks, std::int64_t rank) {
  return std::find(ranks.begin(), ranks.end(), static_cast<int>(rank)) - ranks.begin();
}

// Ranks that differ in neither their blocks nor their part of them, in the order of ranks.
std::vector<int> replicas_of(const Plan& plan, const RankPlan& rank) {
  using comm::Axis;
  return plan.mesh.ranks().members(static_cast<int>(rank.rank),
                                   {Axis::kData, Axis::kCfg, Axis::kTokens, Axis::kUlysses});
}

bool works(const Plan& plan, int rank) {
  return plan.ranks.at(static_cast<std::size_t>(rank)).pictures.count > 0;
}

// Neighbours among the replicas; alone where none of them works.
void divide_blocks(Plan& plan, RankPlan& rank) {
  const std::vector<int> replicas = replicas_of(plan, rank);
  const std::int64_t first = place_of(replicas, rank.rank) / plan.shard * plan.shard;
  rank.sharding.assign(replicas.begin() + first, replicas.begin() + first + plan.shard);
  if (std::none_of(rank.sharding.begin(), rank.sharding.end(), [&](int r) { return works(plan, r); }))
    rank.sharding = {static_cast<int>(rank.rank)};
}

bool holds_denoiser(const Plan& plan, const RankPlan& rank) {
  return rank.pictures.count > 0 || (plan.shard > 1 && rank.sharding.size() > 1);
}

std::uint64_t file_bytes(const models::Network& network, double elements, double all_elements) {
  std::uint64_t bytes = 0;
  for (const weights::Placed& placed : network.placed)
    for (const weights::Piece& piece : placed.pieces) bytes += piece.bytes;
  return static_cast<std::uint64_t>(static_cast<double>(bytes) * elements / all_elements);
}

// Ranks among which the reading of what they all store is divided: whoever encodes prompts reads the
// encoders, too, and so less of the blocks.
Readers readers_among(const Plan& plan, std::vector<int> ranks, std::uint64_t bytes, std::uint64_t encoders) {
  Readers readers{std::move(ranks), {}};
  const auto count = static_cast<std::uint64_t>(readers.ranks.size());
  const std::uint64_t target = (bytes + encoders) / count;
  for (const int rank : readers.ranks) {
    const bool busy = count > 1 && plan.ranks.at(static_cast<std::size_t>(rank)).encodes;
    readers.shares.push_back(static_cast<std::int64_t>(busy ? target - std::min(target, encoders)
                                                            : std::max<std::uint64_t>(target, 1)));
  }
  if (std::reduce(readers.shares.begin(), readers.shares.end()) == 0) readers.shares.back() = 1;
  return readers;
}

// Who else stores the same, and how the reading is divided.
void assign_readers(Plan& plan, const models::Model& model, const models::Network& network) {
  using comm::Axis;
  std::uint64_t encoders = 0;
  for (const models::Network& other : model.networks)
    if (other.role == Role::kEncoder) encoders += file_bytes(other, 1, 1);
  const bool encoder = network.role == Role::kEncoder;
  const bool denoiser = network.role == Role::kDenoiser;
  for (RankPlan& rank : plan.ranks) {
    const auto me = static_cast<int>(rank.rank);
    std::vector<int> same{me};
    if (encoder ? !rank.encodes : denoiser ? !holds_denoiser(plan, rank) : rank.pictures.count == 0) continue;
    if (denoiser) {
      const std::int64_t mine = place_of(rank.sharding, rank.rank);
      std::vector<int> blocks = replicas_of(plan, rank);
      std::erase_if(blocks, [&](int other) {
        const RankPlan& peer = plan.ranks.at(static_cast<std::size_t>(other));
        return !holds_denoiser(plan, peer) || place_of(peer.sharding, other) != mine;
      });
      const auto parts =
          static_cast<double>(rank.sharding.size() * static_cast<std::size_t>(plan.mesh.tensor) *
                              static_cast<std::size_t>(plan.mesh.pipefusion));
      rank.block_readers = readers_among(plan, blocks, file_bytes(network, 1, parts), encoders);
      same = plan.mesh.ranks().members(
          me, {Axis::kData, Axis::kCfg, Axis::kTokens, Axis::kUlysses, Axis::kTensor});
      std::erase_if(same,
                    [&](int r) { return !holds_denoiser(plan, plan.ranks.at(static_cast<std::size_t>(r))); });
    } else if (!encoder) {
      same.clear();
      for (const RankPlan& peer : plan.ranks)
        if (peer.pictures.count > 0) same.push_back(static_cast<int>(peer.rank));
    }
    rank.readers[network.component] = readers_among(plan, same, file_bytes(network, 1, 1), 0);
  }
}

void count_bytes(const Plan& plan, RankPlan& rank, const models::Network& network, DType dtype) {
  const std::vector<HeldParameter> held = held_by(plan, rank, network);
  const Storage storage = storage_of(plan, rank, network);
  std::int64_t memory = elements_of(storage.blocks) + elements_of(storage.outside);
  if (shards_weights(plan, network)) {
    std::int64_t longest = 0;
    for (const Range& unit : sharded_units(held, rank.blocks)) longest = std::max(longest, unit.count);
    memory += 2 * longest;
  }
  const auto element = static_cast<std::int64_t>(size_of(network.dtype(dtype)));
  std::int64_t unquantised = 0;  // bytes, and those of what becomes of them
  std::int64_t quantised = 0;
  for (const HeldParameter& one : held) {
    if (!is_quantised(plan, network, one)) continue;
    unquantised += one.elements() * element;
    quantised += one.elements() + one.shape.front() * static_cast<std::int64_t>(sizeof(float));
  }
  std::int64_t all = 0;
  for (const weights::Parameter& parameter : network.parameters)
    all += std::reduce(parameter.shape.begin(), parameter.shape.end(), std::int64_t{1}, std::multiplies<>());
  rank.networks[network.component] = {
      .file = file_bytes(network, static_cast<double>(elements_of(reads_of(plan, rank, network))),
                         static_cast<double>(all)),
      .memory = static_cast<std::uint64_t>(memory * element - unquantised + quantised),
      .unquantised = static_cast<std::uint64_t>(unquantised)};
}

template <class F>
const models::Network& first_network(const models::Model& model, F&& fits) {
  const auto found = std::find_if(model.networks.begin(), model.networks.end(), fits);
  XDIT_ASSERT(found != model.networks.end());
  return *found;
}

// Rows of the step before.
std::uint64_t displaced_bytes(const Plan& plan, const config::RunSpec& spec, const models::Model& model) {
  const std::int64_t branches = spec.sampling.cfg_scale > 1 && plan.mesh.cfg == 1 ? 2 : 1;
  return static_cast<std::uint64_t>(
      displaced_bytes(row_exchanges(unet_of(model), plan.image_tokens / plan.image_columns,
                                    plan.image_columns, static_cast<std::int64_t>(size_of(spec.model.dtype))),
                      branches));
}

// Text encoders go before the denoiser runs; the decoder's largest buffers are four pictures of its first
// level.
void predict_memory(const Plan& plan, RankPlan& rank, const config::RunSpec& spec, const models::Model& model,
                    std::uint64_t capacity) {
  const auto element = static_cast<std::uint64_t>(size_of(spec.model.dtype));
  std::int64_t image = 0;
  for (const Range& band : rank.image_tokens) image += band.count;
  const auto width = static_cast<std::uint64_t>(model.shape.width);
  const auto tokens = static_cast<std::uint64_t>(rank.text_tokens.count + image);
  const auto all_tokens = static_cast<std::uint64_t>(plan.text_tokens + plan.image_tokens);
  std::uint64_t activations = tokens * width * element * 24 * (plan.joins_branches ? 2 : 1);
  if (plan.mesh.pipefusion > 1) {  // K and V of every layer stay
    const auto parts = static_cast<std::uint64_t>(plan.mesh.ulysses * plan.mesh.tensor);
    const std::uint64_t branches = spec.sampling.cfg_scale > 1 && plan.mesh.cfg == 1 ? 2 : 1;
    activations +=
        2 * all_tokens * width * element * static_cast<std::uint64_t>(rank.blocks.count) * branches / parts;
  }
  if (plan.displaced && image > 0) activations += displaced_bytes(plan, spec, model);
  const std::uint64_t pixels = static_cast<std::uint64_t>(spec.image.width) *
                               static_cast<std::uint64_t>(rank.latent_rows.count * model.shape.latent_scale);
  const models::Network& decoder =
      first_network(model, [](const models::Network& n) { return n.role == Role::kDecoder; });
  const std::uint64_t decoding =
      pixels * 256 * static_cast<std::uint64_t>(size_of(decoder.dtype(spec.model.dtype))) * 4;
  std::uint64_t encoders = 0;
  std::uint64_t denoising = 0;
  std::uint64_t unquantised = 0;
  for (const auto& [name, bytes] : rank.networks) {
    (network_of(model, name).role == Role::kEncoder ? encoders : denoising) += bytes.memory;
    unquantised += bytes.unquantised;
  }
  const std::uint64_t captured = plan.replays && plan.shard == 1 ? activations : 0;  // a graph's are its own
  const std::uint64_t later = denoising + captured + std::max(activations + unquantised, decoding);
  // Whoever shards wants memory, not haste; shares are allocated together, so all of its ranks do alike.
  rank.overlap_loading = plan.shard == 1 && kContextBytes + encoders + later <= capacity;
  rank.peak_memory = kContextBytes + (rank.overlap_loading ? encoders + later : std::max(encoders, later));
}

[[noreturn]] void refuse_memory(const Plan& plan, const RankPlan& rank, const config::RunSpec& spec,
                                const models::Model& model, std::uint64_t capacity, std::int64_t sharing) {
  std::uint64_t encoders = 0;
  std::uint64_t denoising = 0;
  for (const auto& [name, bytes] : rank.networks)
    (network_of(model, name).role == Role::kEncoder ? encoders : denoising) +=
        bytes.memory + bytes.unquantised;
  std::string fix = "a smaller --size, or --device cpu";
  if (spec.model.dtype == DType::kF32) fix = "--dtype bf16";
  if (sharing > 1) fix = "fewer --gpus";
  if (replicas_of(plan, rank).size() > 1 && spec.parallel.shard_weights == "false") fix = "--shard-weights";
  if (plan.quantised) fix = "--quantize none: both forms of the matrices lie in memory while files are read";
  throw Error(
      ExitCode::kMemory,
      fmt::format("needs {:.1f} GB on the device, which has {:.1f} GB{}: encoders {:.1f}, denoiser and "
                  "decoder {:.1f}",
                  static_cast<double>(rank.peak_memory) / 1e9, static_cast<double>(capacity) / 1e9,
                  sharing == 1 ? "" : fmt::format(" for each of {} ranks", sharing),
                  static_cast<double>(encoders) / 1e9, static_cast<double>(denoising) / 1e9),
      {}, fix);
}

// Fills in everything that follows from plan.shard; the rank that does not fit, or null.
const RankPlan* try_shard(Plan& plan, const config::RunSpec& spec, const models::Model& model,
                          const std::function<std::uint64_t(const RankPlan&)>& capacity) {
  for (RankPlan& rank : plan.ranks) {
    rank.networks.clear();
    rank.readers.clear();
    rank.block_readers = {};
    divide_blocks(plan, rank);
  }
  for (const models::Network& network : model.networks) assign_readers(plan, model, network);
  const RankPlan* misfit = nullptr;
  for (RankPlan& rank : plan.ranks) {
    for (const models::Network& network : model.networks)
      if (rank.readers.contains(network.component)) count_bytes(plan, rank, network, spec.model.dtype);
    if (rank.networks.empty()) continue;
    predict_memory(plan, rank, spec, model, capacity(rank));
    if (rank.peak_memory > capacity(rank) && misfit == nullptr) misfit = &rank;
  }
  return misfit;
}

}  // namespace

std::vector<HeldParameter> held_by(const Plan& plan, const RankPlan& rank, const models::Network& network) {
  const comm::Coordinates at = plan.mesh.ranks().coordinates(static_cast<int>(rank.rank));
  const Range blocks = network.role == Role::kDenoiser ? rank.blocks : kAllBlocks;
  return held_parameters(network, blocks, plan.mesh.tensor,
                         at[static_cast<std::size_t>(comm::Axis::kTensor)]);
}

bool is_quantised(const Plan& plan, const models::Network& network, const HeldParameter& held) {
  return plan.quantised && network.role == Role::kDenoiser && held.is_cut_matrix;
}

const models::Network& network_of(const models::Model& model, const std::string& component) {
  return first_network(model, [&](const models::Network& n) { return n.component == component; });
}

const models::Network& denoiser_of(const models::Model& model) {
  return first_network(model, [](const models::Network& n) { return n.role == Role::kDenoiser; });
}

std::vector<std::int64_t> block_costs(const models::Model& model) {
  std::vector<std::int64_t> costs(static_cast<std::size_t>(model.shape.blocks));
  for (const weights::Parameter& parameter : denoiser_of(model).parameters)
    if (parameter.block() != weights::kNoBlock)
      costs.at(static_cast<std::size_t>(parameter.block())) +=
          std::reduce(parameter.shape.begin(), parameter.shape.end(), std::int64_t{1}, std::multiplies<>());
  return costs;
}

Storage storage_of(const Plan& plan, const RankPlan& rank, const models::Network& network) {
  const std::vector<HeldParameter> held = held_by(plan, rank, network);
  const bool shards = shards_weights(plan, network);
  Storage storage;
  for (const HeldParameter& one : held)
    if (!shards || !one.is_sharded())
      (one.block == weights::kNoBlock ? storage.outside : storage.blocks)
          .push_back({one.offset, one.elements()});
  if (!shards) return storage;
  const auto ranks = static_cast<std::int64_t>(rank.sharding.size());
  for (const Range& unit : sharded_units(held, rank.blocks))
    storage.blocks.push_back(share_of(unit, ranks, place_of(rank.sharding, rank.rank)));
  return storage;
}

std::vector<Range> reads_of(const Plan& plan, const RankPlan& rank, const models::Network& network) {
  const Storage storage = storage_of(plan, rank, network);
  const auto share = [&](const std::vector<Range>& ranges, const Readers& readers) {
    return shared_out(ranges, readers.shares, static_cast<std::size_t>(place_of(readers.ranks, rank.rank)));
  };
  std::vector<Range> reads = share(storage.outside, rank.readers.at(network.component));
  if (network.role == Role::kDenoiser)
    for (const Range& range : share(storage.blocks, rank.block_readers)) reads.push_back(range);
  return reads;
}

void spread_weights(Plan& plan, const config::RunSpec& spec, const models::Model& model,
                    const Machine& machine) {
  const bool on_cpu = spec.runtime.device == config::Device::kCpu;
  const auto sharing = [&](const RankPlan& rank) {
    return std::count_if(plan.ranks.begin(), plan.ranks.end(), [&](const RankPlan& other) {
      return other.device == rank.device && other.pictures.count > 0;
    });
  };
  const auto capacity = [&](const RankPlan& rank) {
    const std::uint64_t memory =
        on_cpu ? machine.host_memory : machine.gpus[static_cast<std::size_t>(rank.device)].memory;
    return memory / static_cast<std::uint64_t>(std::max<std::ptrdiff_t>(1, sharing(rank)));
  };
  const auto replicas = static_cast<std::int64_t>(replicas_of(plan, plan.ranks.front()).size());
  std::vector<std::int64_t> degrees;  // that may be tried, in this order
  for (std::int64_t d = 1; d <= replicas; ++d)
    if (replicas % d == 0) degrees.push_back(d);
  if (plan.quantised && spec.parallel.shard_weights == "true")
    throw Error(ExitCode::kUsage, "shares of blocks are not quantised", "--shard-weights",
                "--no-shard-weights, or --quantize none");
  if (plan.quantised || spec.parallel.shard_weights == "false") degrees = {1};
  if (spec.parallel.shard_weights == "true") {
    if (replicas == 1)
      throw Error(ExitCode::kUsage, "no two ranks of this grid hold the same weights", "--shard-weights",
                  "more --gpus, or --no-shard-weights");
    degrees.erase(degrees.begin());
  }
  const RankPlan* misfit = nullptr;
  for (const std::int64_t degree : degrees) {
    plan.shard = degree;
    misfit = try_shard(plan, spec, model, capacity);
    if (misfit == nullptr) return;
  }
  XDIT_ASSERT(misfit != nullptr);
  refuse_memory(plan, *misfit, spec, model, capacity(*misfit), sharing(*misfit));
}

}  // namespace xdit::parallel
