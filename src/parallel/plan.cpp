#include "parallel/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/error.h"

namespace xdit::parallel {
namespace {

constexpr std::uint64_t kContextBytes = std::uint64_t{1} << 30U;  // CUDA context, cuBLAS and cuDNN workspaces

// Device numbers of "all", a count, or a list with a comma.
std::vector<std::int64_t> devices_of(const std::string& gpus, std::int64_t available, bool on_cpu) {
  std::vector<std::int64_t> devices;
  if (gpus == "all") {
    devices.resize(on_cpu ? 1 : std::max<std::int64_t>(available, 1));
    std::iota(devices.begin(), devices.end(), 0);
  } else if (gpus.find(',') == std::string::npos) {
    devices.resize(static_cast<std::size_t>(std::stoll(gpus)));
    std::iota(devices.begin(), devices.end(), 0);
  } else {
    for (std::size_t at = 0; at < gpus.size();) {
      const std::size_t comma = std::min(gpus.find(',', at), gpus.size());
      devices.push_back(std::stoll(gpus.substr(at, comma - at)));
      at = comma + 1;
    }
  }
  return devices;
}

void require_devices(const std::vector<std::int64_t>& devices, const Machine& machine) {
  if (machine.gpus.empty())
    throw Error(ExitCode::kDevice,
                "no GPU: the NVIDIA driver is missing or CUDA_VISIBLE_DEVICES hides every GPU", {},
                "--device cpu, or nvidia-smi to see what the driver sees");
  const auto count = static_cast<std::int64_t>(machine.gpus.size());
  for (const std::int64_t device : devices)
    if (device >= count)
      throw Error(ExitCode::kDevice, fmt::format("no GPU {}: this machine shows {}", device, count), "--gpus",
                  fmt::format("--gpus {}", count));
}

// Part `index` of `count` things cut in `parts`: the first ones take one more.
Range part_of(std::int64_t count, std::int64_t parts, std::int64_t index) {
  const std::int64_t more = count % parts;
  return {count / parts * index + std::min(index, more), count / parts + (index < more ? 1 : 0)};
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

std::uint64_t product(const std::vector<std::int64_t>& shape) {
  return static_cast<std::uint64_t>(
      std::reduce(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>()));
}

NetworkBytes bytes_of(const models::Network& network, DType dtype) {
  NetworkBytes bytes;
  for (const weights::Parameter& parameter : network.parameters)
    bytes.memory += product(parameter.shape) * static_cast<std::uint64_t>(size_of(dtype));
  for (const weights::Placed& placed : network.placed)
    for (const weights::Piece& piece : placed.pieces) bytes.file += piece.bytes;
  return bytes;
}

// Text encoders go before the denoiser runs; the decoder's largest buffers are four pictures of its first
// level.
void predict_memory(RankPlan& rank, const config::RunSpec& spec, const models::Model& model,
                    std::uint64_t device_memory, std::int64_t sharing) {
  const std::uint64_t capacity = device_memory / static_cast<std::uint64_t>(sharing);
  const auto element = static_cast<std::uint64_t>(size_of(spec.model.dtype));
  const auto tokens = static_cast<std::uint64_t>(rank.text_tokens.count + rank.image_tokens.count);
  const std::uint64_t activations = tokens * static_cast<std::uint64_t>(model.shape.width) * element * 24;
  const std::uint64_t pixels = static_cast<std::uint64_t>(spec.image.width) *
                               static_cast<std::uint64_t>(rank.latent_rows.count * model.shape.latent_scale);
  const std::uint64_t decoding = pixels * 256 * element * 4;
  std::uint64_t encoders = 0;
  std::uint64_t denoising = 0;
  for (const auto& [name, bytes] : rank.networks)
    (name.starts_with("text_encoder") ? encoders : denoising) += bytes.memory;
  const std::uint64_t later = denoising + std::max(activations, decoding);
  rank.overlap_loading = kContextBytes + encoders + later <= capacity;
  rank.peak_memory = kContextBytes + (rank.overlap_loading ? encoders + later : std::max(encoders, later));
  if (rank.peak_memory > capacity) {
    const bool halves = spec.model.dtype == DType::kF32;
    throw Error(
        ExitCode::kMemory,
        fmt::format(
            "needs {:.1f} GB on the device, which has {:.1f} GB{}: encoders {:.1f}, denoiser and decoder "
            "{:.1f}, activations {:.1f}",
            static_cast<double>(rank.peak_memory) / 1e9, static_cast<double>(capacity) / 1e9,
            sharing == 1 ? "" : fmt::format(" for each of {} ranks", sharing),
            static_cast<double>(encoders) / 1e9, static_cast<double>(denoising) / 1e9,
            static_cast<double>(std::max(activations, decoding)) / 1e9),
        {},
        sharing > 1 ? "fewer --gpus"
        : halves    ? "--dtype bf16"
                    : "a smaller --size, or --device cpu");
  }
}

}  // namespace

Plan make_plan(const config::RunSpec& spec, const models::Model& model, const Machine& machine) {
  const std::int64_t multiple = model.shape.pixels_per_token;
  for (const auto& [flag, pixels] : {std::pair{"--width", spec.image.width}, {"--height", spec.image.height}})
    if (pixels % multiple != 0)
      throw Error(
          ExitCode::kUsage, fmt::format("this model makes multiples of {} pixels, not {}", multiple, pixels),
          flag,
          fmt::format("{} {}", flag, std::max(multiple, (pixels + multiple / 2) / multiple * multiple)));

  const bool on_cpu = spec.runtime.device == config::Device::kCpu;
  const std::vector<std::int64_t> devices =
      devices_of(spec.parallel.gpus, static_cast<std::int64_t>(machine.gpus.size()), on_cpu);
  if (!on_cpu) require_devices(devices, machine);

  Plan plan;
  plan.mesh = choose_mesh(spec, model.shape.heads, static_cast<std::int64_t>(devices.size()));
  if (!on_cpu && plan.mesh.size() != plan.mesh.data)
    throw Error(ExitCode::kUsage,
                "this version spreads whole pictures over GPUs; parts of one over CPU ranks only", "parallel",
                fmt::format("--data {}", devices.size()));
  const comm::Mesh mesh = plan.mesh.ranks();
  plan.text_tokens = spec.sampling.max_sequence_length;
  plan.image_tokens = spec.image.width / multiple * (spec.image.height / multiple);
  const auto pictures = static_cast<std::int64_t>(config::pictures(spec).size());
  if (pictures < plan.mesh.data) plan.notes.push_back(idle_note(pictures, plan.mesh.data));
  if (!spec.output.trace.empty() && std::min(pictures, plan.mesh.data) > 1)
    throw Error(ExitCode::kUsage, "pictures of several ranks do not go into one file", "--trace", "--gpus 1");
  for (std::size_t i = 0; i < devices.size(); ++i) {
    RankPlan rank;
    rank.rank = static_cast<std::int64_t>(i);
    rank.device = on_cpu ? 0 : devices[i];
    const comm::Coordinates at = mesh.coordinates(static_cast<int>(i));
    const auto along = [&](comm::Axis axis) { return at[static_cast<std::size_t>(axis)]; };
    const std::int64_t token_rank =
        along(comm::Axis::kTokens) * plan.mesh.ulysses + along(comm::Axis::kUlysses);
    const std::int64_t token_ranks = plan.mesh.ring * plan.mesh.gather * plan.mesh.ulysses;
    rank.pictures = part_of(pictures, plan.mesh.data, along(comm::Axis::kData));
    rank.decodes = token_rank == 0 && along(comm::Axis::kCfg) == 0;
    if (rank.pictures.count > 0) {
      rank.text_tokens = part_of(plan.text_tokens, token_ranks, token_rank);
      rank.image_tokens = part_of(plan.image_tokens, token_ranks, token_rank);
    }
    plan.ranks.push_back(rank);
  }
  cut_slabs(plan, spec, spec.image.height / model.shape.latent_scale);
  for (RankPlan& rank : plan.ranks) {
    if (rank.pictures.count == 0) continue;
    rank.blocks = {0, model.shape.blocks};
    for (const models::Network& network : model.networks)
      rank.networks[network.component] = bytes_of(network, spec.model.dtype);
    const auto sharing = std::count_if(plan.ranks.begin(), plan.ranks.end(), [&](const RankPlan& other) {
      return other.device == rank.device && other.pictures.count > 0;
    });
    predict_memory(rank, spec, model,
                   on_cpu ? machine.host_memory : machine.gpus[static_cast<std::size_t>(rank.device)].memory,
                   sharing);
  }
  return plan;
}

std::string to_text(const Plan& plan, const Machine& machine, const config::RunSpec& spec) {
  const auto range = [](const Range& r) {
    return r.count == 0 ? std::string("none") : fmt::format("{}-{}", r.first, r.first + r.count - 1);
  };
  const Mesh& m = plan.mesh;
  std::string text = fmt::format(
      "mesh: data {} x cfg {} x pipefusion {} x ring {} x gather {} x ulysses {} x tensor {} = {} rank{}\n"
      "tokens: {} text + {} image\n",
      m.data, m.cfg, m.pipefusion, m.ring, m.gather, m.ulysses, m.tensor, m.size(), m.size() == 1 ? "" : "s",
      plan.text_tokens, plan.image_tokens);
  for (const std::string& note : plan.notes) text += note + "\n";
  for (const RankPlan& rank : plan.ranks) {
    const bool on_cpu = spec.runtime.device == config::Device::kCpu;
    text += fmt::format("rank {} on {}:\n", rank.rank,
                        on_cpu ? "cpu"
                               : fmt::format("GPU {} ({})", rank.device,
                                             machine.gpus[static_cast<std::size_t>(rank.device)].name));
    if (rank.pictures.count == 0) {
      text += "  idle\n";
      continue;
    }
    text += fmt::format("  pictures {}, text tokens {}, image tokens {}, blocks {}, latent rows {}\n",
                        range(rank.pictures), range(rank.text_tokens), range(rank.image_tokens),
                        range(rank.blocks), range(rank.latent_rows));
    for (const auto& [name, bytes] : rank.networks)
      text += fmt::format("  {}: reads {:.3f} GB, holds {:.3f} GB\n", name,
                          static_cast<double>(bytes.file) / 1e9, static_cast<double>(bytes.memory) / 1e9);
    text += fmt::format("  predicted peak {:.2f} GB\n", static_cast<double>(rank.peak_memory) / 1e9);
  }
  return text;
}

}  // namespace xdit::parallel
