#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "launch/health.h"

namespace xdit::launch {
namespace {

using Ordered = nlohmann::ordered_json;

std::string version_text(std::int64_t version, std::int64_t major) {
  return version == 0 ? "none" : fmt::format("{}.{}", version / major, version % major / (major / 100));
}

std::string nccl_text(std::int64_t version) {
  return version == 0 ? "none" : fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

const char* link_text(parallel::Link link) {
  switch (link) {
    case parallel::Link::kNone:
      return "no peer access";
    case parallel::Link::kFar:
      return "PCIe, other socket";
    case parallel::Link::kNear:
      return "PCIe";
    case parallel::Link::kNvlink:
      return "NVLink";
  }
  return "";
}

double rate_of(const pipeline::Probe& probe, std::size_t from, std::size_t to) {
  return from < probe.pairs.size() ? probe.pairs[from][to] / 1e9 : 0;
}

std::string gpu_text(const Health& health, std::size_t i) {
  const parallel::Gpu& gpu = health.machine.gpus[i];
  const GpuState& state = health.gpus[i];
  const GpuSample& tried = health.tried[i];
  std::string text = fmt::format(
      "GPU {}: {}, {}, {}\n  {:.1f} GB, {:.1f} free; {:.0f} W of {:.0f}, {} C, {} MHz of {}, {} % busy, {} "
      "NVLinks\n",
      i, gpu.name, gpu.uuid, state.pci_bus, static_cast<double>(gpu.memory) / 1e9,
      static_cast<double>(state.memory_free) / 1e9, tried.power_w, state.power_limit_w, tried.temperature_c,
      tried.sm_mhz, state.sm_mhz_max, state.busy_percent, state.nvlinks);
  if (i < health.probe.host.size())
    text += fmt::format("  {:.1f} GB/s from the host\n", health.probe.host[i] / 1e9);
  for (std::size_t j = 0; j < health.machine.gpus.size(); ++j)
    if (i != j)
      text += fmt::format("  to GPU {}: {}, {:.0f} GB/s\n", j, link_text(health.machine.links[i][j]),
                          rate_of(health.probe, i, j));
  return text;
}

Ordered gpu_json(const Health& health, std::size_t i) {
  const GpuState& state = health.gpus[i];
  const GpuSample& tried = health.tried[i];
  Ordered processes = Ordered::array();
  for (const GpuProcess& process : state.processes)
    processes.push_back({{"pid", process.pid}, {"memory", process.memory}});
  return {{"name", health.machine.gpus[i].name},
          {"uuid", health.machine.gpus[i].uuid},
          {"pci_bus", state.pci_bus},
          {"memory_free", state.memory_free},
          {"sm_mhz", tried.sm_mhz},
          {"sm_mhz_max", state.sm_mhz_max},
          {"power_w", tried.power_w},
          {"power_limit_w", state.power_limit_w},
          {"power_default_w", state.power_default_w},
          {"temperature_c", tried.temperature_c},
          {"throttled_by", throttle_text(tried.throttle)},
          {"busy_percent", state.busy_percent},
          {"nvlinks", state.nvlinks},
          {"processes", processes}};
}

}  // namespace

Ordered to_json(const Health& health, const std::vector<Problem>& problems) {
  Ordered json{{"driver", health.driver},
               {"driver_cuda", health.cuda},
               {"cuda", health.probe.cuda},
               {"nccl", health.probe.nccl},
               {"gpus", Ordered::array()},
               {"host_to_gpu_bytes_s", health.probe.host},
               {"gpu_to_gpu_bytes_s", health.probe.pairs},
               {"disk", {{"path", health.disk_path}, {"bytes_s", health.disk}}},
               {"dev_shm_bytes", health.shm},
               {"open_files", health.open_files},
               {"locked_memory", health.locked},
               {"machine", nlohmann::json(health.machine)},
               {"problems", Ordered::array()}};
  for (std::size_t i = 0; i < health.gpus.size(); ++i) json["gpus"].push_back(gpu_json(health, i));
  for (const Problem& problem : problems)
    json["problems"].push_back({{"what", problem.what}, {"mend", problem.mend}, {"fatal", problem.fatal}});
  return json;
}

std::string to_text(const Health& health, const std::vector<Problem>& problems) {
  const bool unlimited = health.locked == std::numeric_limits<std::uint64_t>::max();
  std::string text = fmt::format(
      "driver {} (CUDA {}); this build: CUDA {}, NCCL {}\n", health.driver.empty() ? "none" : health.driver,
      version_text(health.cuda, 1000), version_text(health.probe.cuda, 1000), nccl_text(health.probe.nccl));
  for (std::size_t i = 0; i < health.gpus.size(); ++i) text += gpu_text(health, i);
  if (health.probe.product > 0)
    text += fmt::format("GPU 0 for a moment: {:.0f} TFLOP/s of bf16 products, {:.2f} TB/s of its memory\n",
                        health.probe.product / 1e12, health.probe.memory / 1e12);
  text += fmt::format(
      "host: {} cores, {:.1f} GB; /dev/shm {:.2f} GB; {} open files, {} of locked memory\ndisk of {}: {}\n",
      health.machine.cores, static_cast<double>(health.machine.host_memory) / 1e9,
      static_cast<double>(health.shm) / 1e9, health.open_files,
      unlimited ? "any amount" : fmt::format("{} MB", health.locked / 1'000'000), health.disk_path,
      health.disk > 0 ? fmt::format("{:.2f} GB/s", health.disk / 1e9) : "not measured");
  for (const Problem& problem : problems)
    text += fmt::format("problem: {}\n  mend: {}\n", problem.what, problem.mend);
  return text + (problems.empty() ? "no problems\n" : "");
}

}  // namespace xdit::launch
