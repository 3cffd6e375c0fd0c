#include "launch/join.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <string_view>

#include "core/error.h"

namespace xdit::launch {
namespace {

struct Variables {
  const char* rank;
  const char* ranks;
  const char* ranks_here;  ///< on this machine
};
// torchrun, Open MPI, MPICH and Intel MPI, Slurm. Batch scripts of Slurm have SLURM_NTASKS and SLURM_PROCID
// too: only srun's steps count.
constexpr std::array<Variables, 4> kLaunchers{{
    {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"},
}};

std::int64_t number(const char* name, std::string_view text) {
  std::int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0)
    throw Error(ExitCode::kUsage, fmt::format("expected a number, found '{}'", text), name,
                fmt::format("unset {}, or start with torchrun, mpirun or srun", name));
  return value;
}

}  // namespace

std::optional<Place> joined_place(const std::function<const char*(const char*)>& variable) {
  for (const Variables& names : kLaunchers) {
    const char* rank = variable(names.rank);
    const char* ranks = variable(names.ranks);
    if (rank == nullptr || ranks == nullptr) continue;
    const Place place{.rank = number(names.rank, rank), .ranks = number(names.ranks, ranks)};
    if (place.ranks <= 1) continue;
    if (place.rank >= place.ranks)
      throw Error(ExitCode::kUsage, fmt::format("rank {} of {}", place.rank, place.ranks), names.rank);
    const char* here = variable(names.ranks_here);
    if (here != nullptr && std::string_view(here) != ranks)  // Slurm: "4(x2)" is two machines
      throw Error(ExitCode::kUsage, fmt::format("{} ranks, of which {} are on this machine", ranks, here),
                  names.ranks, "one machine: this version does not reach over several");
    return place;
  }
  return std::nullopt;
}

pipeline::Meeting meeting_place(const std::function<const char*(const char*)>& variable) {
  const auto text = [&](const char* name) -> std::string {
    const char* value = variable(name);
    return value == nullptr ? "" : value;
  };
  pipeline::Meeting meeting{.host = text("MASTER_ADDR"),
                            .port = 0,
                            .served = text("TORCHELASTIC_USE_AGENT_STORE") == "True",
                            .attempt = text("TORCHELASTIC_RESTART_COUNT")};
  const std::string port = text("MASTER_PORT");
  if (meeting.host.empty() || port.empty())
    throw Error(ExitCode::kUsage, "ranks meet there, and it is not set",
                meeting.host.empty() ? "MASTER_ADDR" : "MASTER_PORT",
                "export MASTER_ADDR=localhost MASTER_PORT=29500 (a free port)");
  const std::int64_t number_of_port = number("MASTER_PORT", port);
  if (number_of_port == 0 || number_of_port > 65535)
    throw Error(ExitCode::kUsage, fmt::format("{} is no port", port), "MASTER_PORT",
                "29500 or another free one; torchrun: --standalone");
  meeting.port = static_cast<std::uint16_t>(number_of_port);
  return meeting;
}

config::RunSpec joined_spec(config::RunSpec spec, const Place& place, std::size_t visible) {
  std::string& gpus = spec.parallel.gpus;
  const std::string count = std::to_string(place.ranks);
  if (gpus.find(',') != std::string::npos || gpus.starts_with("GPU-")) {
    // "0,1" and "0,1," are both two devices.
    const auto commas = std::count(gpus.begin(), gpus.end(), ',');
    if (commas + (gpus.ends_with(',') ? 0 : 1) == place.ranks) return spec;
  } else if (gpus == "1" || gpus == "all" || gpus == count) {
    gpus = count;
    if (visible == 1) {
      gpus.clear();
      for (std::int64_t i = 0; i < place.ranks; ++i) gpus += "0,";
    }
    return spec;
  }
  throw Error(ExitCode::kUsage, fmt::format("{} does not give the {} ranks that were started", gpus, count),
              "--gpus", fmt::format("leave it out, or --gpus {}", count));
}

}  // namespace xdit::launch
