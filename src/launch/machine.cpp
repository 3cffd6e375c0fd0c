#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "launch/launch.h"
#include "launch/limits.h"
#include "launch/nvml.h"
#include "launch/visible.h"

namespace xdit::launch {
namespace {

parallel::Link link_of(const GpuPair& pair) {
  if (!pair.access) return parallel::Link::kNone;
  if (pair.nvlink) return parallel::Link::kNvlink;
  return pair.socket ? parallel::Link::kNear : parallel::Link::kFar;
}

void find_links(const Nvml& nvml, parallel::Machine& machine) {
  std::vector<std::size_t> numbers;
  for (const parallel::Gpu& gpu : machine.gpus) numbers.push_back(nvml.find(gpu.uuid));
  for (const std::size_t from : numbers) {
    std::vector<parallel::Link>& row = machine.links.emplace_back();
    for (const std::size_t to : numbers) {
      row.push_back(from == to ? parallel::Link::kNvlink : link_of(nvml.pair(from, to)));
      machine.peer_access = machine.peer_access && row.back() != parallel::Link::kNone;
    }
  }
}

}  // namespace

parallel::Machine this_machine() {
  parallel::Machine machine;
  const Nvml nvml;
  for (std::size_t i = 0; i < nvml.size(); ++i) machine.gpus.push_back(nvml.gpu(i));
  if (const char* names = std::getenv("CUDA_VISIBLE_DEVICES"))
    machine.gpus = visible_gpus(machine.gpus, names);
  find_links(nvml, machine);
  machine.host_memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                        static_cast<std::uint64_t>(::sysconf(_SC_PAGE_SIZE));
  machine.cores = std::max(1U, std::thread::hardware_concurrency());
  apply_limits(machine);
  return machine;
}

}  // namespace xdit::launch
