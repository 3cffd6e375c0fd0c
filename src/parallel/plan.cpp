#include "parallel/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "core/error.h"
#include "parallel/plan_parameters.h"
#include "parallel/plan_predict.h"
#include "parallel/plan_weights.h"

namespace xdit::parallel {
namespace {

std::int64_t device_named(const std::string& name, const Machine& machine) {
  if (!name.starts_with("GPU-")) return std::stoll(name);
  const auto found = std::find_if(machine.gpus.begin(), machine.gpus.end(),
                                  [&](const Gpu& gpu) { return gpu.uuid.starts_with(name); });
  if (found == machine.gpus.end())
    throw Error(ExitCode::kDevice, fmt::format("no {} among the GPUs that this machine shows", name),
                "--gpus", "xdit-gen list devices");
  if (std::any_of(std::next(found), machine.gpus.end(),
                  [&](const Gpu& gpu) { return gpu.uuid.starts_with(name); }))
    throw Error(ExitCode::kDevice, fmt::format("{} is the beginning of several GPUs' UUIDs", name), "--gpus",
                found->uuid);
  return found - machine.gpus.begin();
}

void require_devices(const std::vector<std::int64_t>& devices, const Machine& machine) {
  if (machine.gpus.empty())
    throw Error(ExitCode::kDevice,
                "no GPU: the NVIDIA driver is missing or CUDA_VISIBLE_DEVICES hides every GPU", {},
                "--device cpu, or xdit-gen doctor");
  const auto count = static_cast<std::int64_t>(machine.gpus.size());
  for (const std::int64_t device : devices)
    if (device >= count)
      throw Error(ExitCode::kDevice, fmt::format("no GPU {}: this machine shows {}", device, count), "--gpus",
                  fmt::format("--gpus {}", count));
}

// The host's memory where GPUs do not reach each other's; a GPU always reaches its own.
config::Transport transport_of(const config::RunSpec& spec, const Machine& machine,
                               const std::vector<std::int64_t>& devices) {
  using config::Transport;
  if (spec.runtime.transport != Transport::kAuto) return spec.runtime.transport;
  const bool on_cpu = spec.runtime.device == config::Device::kCpu;
  const bool reach = on_cpu || machine.peer_access || std::set(devices.begin(), devices.end()).size() == 1;
  return reach ? Transport::kPeer : Transport::kHost;
}

// Slabs of the decoder: the first ranks of every picture, as many as asked for (all of them), share its rows.
void cut_slabs(Plan& plan, const config::RunSpec& spec, std::int64_t rows) {
  const std::int64_t ranks = plan.mesh.size() / plan.mesh.data;  // that make a picture
  const std::int64_t degree = spec.parallel.vae.value_or(ranks);
  if (degree > ranks)
    throw Error(ExitCode::kUsage,
                fmt::format("vae {}: {} rank{} a picture", degree, ranks, ranks == 1 ? " makes" : "s make"),
                "--vae-parallel", fmt::format("--vae-parallel {}", ranks));
  for (RankPlan& rank : plan.ranks)
    if (rank.pictures.count > 0 && rank.rank % ranks < degree)
      rank.latent_rows = part_of(rows, degree, rank.rank % ranks);
}

std::string idle_note(std::int64_t pictures, std::int64_t data) {
  return fmt::format(
      "{} picture{} for {} ranks: rank{} {} to do", pictures, pictures == 1 ? "" : "s", data,
      data - pictures == 1 ? fmt::format(" {}", pictures) : fmt::format("s {} to {}", pictures, data - 1),
      data - pictures == 1 ? "has nothing" : "have nothing");
}

std::string grade_note(const Plan& plan) {
  if (plan.grade == config::Allow::kRounding)
    return "this grid rounds differently: the picture is close to that of one GPU, not byte for byte the "
           "same";
  const std::string steps = fmt::format("{} step{}", plan.warmup, plan.warmup == 1 ? "" : "s");
  if (plan.displaced)
    return fmt::format(
        "patch displaced approximates: after {} the others' rows, statistics and keys are one step old; "
        "--patch-warmup with all steps is exact",
        steps);
  return fmt::format(
      "pipefusion {} approximates: after {} it uses keys that are one step old; "
      "--pipefusion-warmup with all steps is exact",
      plan.mesh.pipefusion, steps);
}

// Blocks of a stage: cut so that the dearest stage costs least (double blocks of FLUX have twice the
// weights).
std::vector<Range> stages_of(const models::Model& model, std::int64_t stages) {
  const std::vector<std::int64_t> costs = block_costs(model);
  const std::int64_t all = std::reduce(costs.begin(), costs.end());
  std::vector<Range> ranges;
  std::int64_t first = 0;
  std::int64_t spent = 0;
  const auto blocks = static_cast<std::int64_t>(costs.size());
  for (std::int64_t stage = 0; stage < stages; ++stage) {
    std::int64_t end = first;
    const std::int64_t most = blocks - (stages - stage - 1);  // the others get one each at least
    while (end < most && (end == first || 2 * spent + costs[static_cast<std::size_t>(end)] <=
                                              2 * all * (stage + 1) / stages)) {
      spent += costs[static_cast<std::size_t>(end)];
      ++end;
    }
    if (stage + 1 == stages) end = blocks;
    ranges.push_back({first, end - first});
    first = end;
  }
  return ranges;
}

// Places, pictures, tokens and blocks of every rank.
void place_ranks(Plan& plan, const models::Model& model, std::int64_t pictures) {
  const comm::Mesh mesh = plan.mesh.ranks();
  const std::vector<Range> stages = stages_of(model, plan.mesh.pipefusion);
  const std::int64_t token_ranks = plan.mesh.token_ranks();
  const std::int64_t bands = plan.mesh.pipefusion;
  const std::int64_t unit = model.shape.by_rows ? plan.image_columns : 1;  // tokens that stay together
  for (RankPlan& rank : plan.ranks) {
    const comm::Coordinates at = mesh.coordinates(static_cast<int>(rank.rank));
    const auto along = [&](comm::Axis axis) { return at[static_cast<std::size_t>(axis)]; };
    const std::int64_t token_rank =
        along(comm::Axis::kTokens) * plan.mesh.ulysses + along(comm::Axis::kUlysses);
    rank.pictures = part_of(pictures, plan.mesh.data, along(comm::Axis::kData));
    rank.decodes = token_rank == 0 && along(comm::Axis::kCfg) == 0 && along(comm::Axis::kPipefusion) == 0 &&
                   along(comm::Axis::kTensor) == 0;
    rank.encodes = rank.rank == 0;
    rank.blocks = stages[static_cast<std::size_t>(along(comm::Axis::kPipefusion))];
    if (rank.pictures.count == 0) continue;
    rank.text_tokens = part_of(plan.text_tokens, token_ranks, token_rank);
    for (std::int64_t band = 0; band < bands; ++band) {
      const Range all = part_of(plan.image_tokens, bands, band);
      const Range mine = part_of(all.count / unit, token_ranks, token_rank);
      rank.image_tokens.push_back({all.first + mine.first * unit, mine.count * unit});
    }
  }
}

// Stages wait for bands, displaced rows take turns in buffers, shards come on a second stream, and a relay
// needs the host.
bool can_replay(const Plan& plan) {
  return plan.mesh.pipefusion == 1 && !plan.displaced && plan.shard == 1 &&
         plan.transport == config::Transport::kPeer;
}

std::int64_t values_of_a_launch(const Plan& plan, const models::Shape& shape) {
  return (plan.text_tokens + plan.image_tokens) / plan.mesh.token_ranks() * shape.width;
}

// Launches so short that the gaps between them show. A graph wants memory of its own for its activations.
bool is_short(const Plan& plan, const models::Shape& shape) {
  constexpr std::int64_t kShort = 20'000'000;  // FLUX.1 at 1024 pixels on one GPU: 14 million
  return shape.by_rows || values_of_a_launch(plan, shape) < kShort;
}

// Whether the first forward, which loads kernels and plans products, is worth another one behind the loading:
// one of a large picture would outlast it. Shards and stages want their weights in order.
bool is_worth_warming(const Plan& plan, const config::RunSpec& spec, const models::Shape& shape) {
  constexpr std::int64_t kMost = 40'000'000;  // FLUX.1 at 1024 pixels: 14 million, SDXL: 34
  const bool can = plan.mesh.pipefusion == 1 && plan.shard == 1 &&
                   std::all_of(plan.ranks.begin(), plan.ranks.end(),
                               [](const RankPlan& rank) { return rank.overlap_loading; });
  if (spec.runtime.warm_up != "auto") return can && spec.runtime.warm_up == "true";
  return can && spec.runtime.device == config::Device::kCuda && values_of_a_launch(plan, shape) < kMost;
}

// cuBLASLt scales rows of e4m3 on Hopper alone.
void require_hopper(const std::vector<std::int64_t>& devices, const Machine& machine) {
  for (const std::int64_t device : devices) {
    const Gpu& gpu = machine.gpus.at(static_cast<std::size_t>(device));
    if (gpu.capability != 0 && gpu.capability != 90)
      throw Error(ExitCode::kDevice, fmt::format("fp8 needs Hopper GPUs (H100, H200), not {}", gpu.name),
                  "--quantize", "--quantize none");
  }
}

bool quantises(const config::RunSpec& spec, const models::Model& model) {
  if (spec.model.quantize == config::Quantize::kNone) return false;
  const std::vector<weights::Parameter>& parameters = denoiser_of(model).parameters;
  if (std::none_of(parameters.begin(), parameters.end(), [](const auto& p) { return p.is_cut_matrix(); }))
    throw Error(ExitCode::kUsage, "fp8 is for FLUX's blocks, and this model has none", "--quantize",
                "--quantize none");
  if (spec.model.dtype != DType::kBF16)
    throw Error(ExitCode::kUsage, fmt::format("fp8 is for runs in bf16, not {}", flag_name(spec.model.dtype)),
                "--quantize", "--dtype bf16");
  return true;
}

}  // namespace

std::vector<std::int64_t> devices_of(const std::string& gpus, const Machine& machine, bool on_cpu) {
  const bool listed = gpus.find(',') != std::string::npos || gpus.starts_with("GPU-");
  std::vector<std::int64_t> devices;
  if (listed) {
    for (std::size_t at = 0; at < gpus.size();) {
      const std::size_t comma = std::min(gpus.find(',', at), gpus.size());
      devices.push_back(device_named(gpus.substr(at, comma - at), machine));
      at = comma + 1;
    }
    return devices;
  }
  const std::size_t available = machine.gpus.size();
  const std::size_t count =
      gpus == "all" ? (on_cpu ? 1 : std::max<std::size_t>(available, 1)) : std::stoull(gpus);
  if (!on_cpu && count <= available) devices = by_topology(machine);
  if (devices.empty()) {
    devices.resize(count);
    std::iota(devices.begin(), devices.end(), 0);
  }
  devices.resize(count);
  return devices;
}

bool Plan::keeps_weights() const {
  return shard == 1 &&
         std::all_of(ranks.begin(), ranks.end(), [](const RankPlan& rank) { return rank.overlap_loading; });
}

std::vector<std::size_t> dealt_out(const Plan& plan) {
  std::set<std::pair<std::int64_t, std::int64_t>> shares;  // first and count, one of each picture's ranks
  for (const RankPlan& rank : plan.ranks)
    if (rank.pictures.count > 0) shares.emplace(rank.pictures.first, rank.pictures.count);
  std::size_t pictures = 0;
  for (const auto& [first, count] : shares) pictures += static_cast<std::size_t>(count);
  std::vector<std::size_t> places(pictures);
  std::size_t next = 0;
  for (std::int64_t turn = 0; next < pictures; ++turn)
    for (const auto& [first, count] : shares)
      if (turn < count) places.at(static_cast<std::size_t>(first + turn)) = next++;
  return places;
}

Plan make_plan(const config::RunSpec& spec, const models::Model& model, const Machine& machine) {
  const std::int64_t multiple = model.shape.pixels_per_token;
  for (const auto& [flag, pixels] : {std::pair{"--width", spec.image.width}, {"--height", spec.image.height}})
    if (pixels % multiple != 0)
      throw Error(
          ExitCode::kUsage, fmt::format("this model makes multiples of {} pixels, not {}", multiple, pixels),
          flag,
          fmt::format("{} {}", flag, std::max(multiple, (pixels + multiple / 2) / multiple * multiple)));

  const bool on_cpu = spec.runtime.device == config::Device::kCpu;
  const std::vector<std::int64_t> devices = devices_of(spec.parallel.gpus, machine, on_cpu);
  if (!on_cpu) require_devices(devices, machine);

  Plan plan;
  const auto ranks = static_cast<std::int64_t>(devices.size());
  const std::optional<Mesh> fastest = fastest_mesh(spec, model, machine, ranks);
  plan.mesh = fastest ? *fastest : choose_mesh(spec, model.shape, ranks);
  plan.transport = transport_of(spec, machine, devices);
  plan.displaced = spec.parallel.patch == config::Patch::kDisplaced;
  plan.warmup = std::min(plan.displaced ? spec.parallel.patch_warmup : spec.parallel.pipefusion_warmup,
                         spec.sampling.steps);
  plan.grade = grade_of(plan.mesh, plan.displaced, plan.warmup, spec.sampling.steps);
  plan.text_tokens = model.shape.by_rows ? 0 : spec.sampling.max_sequence_length;
  plan.image_columns = spec.image.width / multiple;
  plan.image_tokens = plan.image_columns * (spec.image.height / multiple);
  const auto pictures = static_cast<std::int64_t>(config::pictures(spec).size());
  if (pictures < plan.mesh.data) plan.notes.push_back(idle_note(pictures, plan.mesh.data));
  if (plan.grade != config::Allow::kExact) plan.notes.push_back(grade_note(plan));
  if (!spec.output.trace.empty() && std::min(pictures, plan.mesh.data) > 1)
    throw Error(ExitCode::kUsage, "pictures of several ranks do not go into one file", "--trace", "--gpus 1");
  for (std::size_t i = 0; i < devices.size(); ++i) {
    RankPlan rank;
    rank.rank = static_cast<std::int64_t>(i);
    rank.device = on_cpu ? 0 : devices[i];
    plan.ranks.push_back(rank);
  }
  place_ranks(plan, model, pictures);
  cut_slabs(plan, spec, spec.image.height / model.shape.latent_scale);
  // Tokens already fill the device; rows that are spread have buffers for one picture.
  plan.joins_branches = model.shape.by_rows && spec.sampling.cfg_scale > 1 && plan.mesh.cfg == 1 &&
                        plan.mesh.token_ranks() == 1 && !plan.displaced;
  plan.quantised = quantises(spec, model);
  if (plan.quantised && !on_cpu) require_hopper(devices, machine);
  plan.replays = !on_cpu && spec.runtime.cuda_graphs && is_short(plan, model.shape) && can_replay(plan);
  spread_weights(plan, spec, model, machine);
  plan.replays = plan.replays && can_replay(plan);  // as weights lie now
  plan.warms_up = is_worth_warming(plan, spec, model.shape);
  return plan;
}

}  // namespace xdit::parallel
