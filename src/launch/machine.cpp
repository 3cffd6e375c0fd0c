#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "launch/launch.h"
#include "launch/limits.h"
#include "launch/nvml.h"

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

// CUDA_VISIBLE_DEVICES: numbers or (beginnings of) UUIDs; the first one that names no GPU ends the list.
std::vector<parallel::Gpu> visible(const std::vector<parallel::Gpu>& all, std::string_view names) {
  std::vector<parallel::Gpu> chosen;
  for (std::size_t at = 0; at <= names.size();) {
    const std::size_t comma = std::min(names.find(',', at), names.size());
    std::string_view name = names.substr(at, comma - at);
    while (name.starts_with(' ')) name.remove_prefix(1);
    while (name.ends_with(' ')) name.remove_suffix(1);
    std::size_t number = all.size();
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error != std::errc{} || end != name.data() + name.size())
      number = static_cast<std::size_t>(std::find_if(all.begin(), all.end(),
                                                     [&](const parallel::Gpu& gpu) {
                                                       return !name.empty() && gpu.uuid.starts_with(name);
                                                     }) -
                                        all.begin());
    if (number >= all.size()) break;
    chosen.push_back(all[number]);
    at = comma + 1;
  }
  return chosen;
}

}  // namespace

parallel::Machine this_machine() {
  parallel::Machine machine;
  const Nvml nvml;
  for (std::size_t i = 0; i < nvml.size(); ++i) machine.gpus.push_back(nvml.gpu(i));
  if (const char* names = std::getenv("CUDA_VISIBLE_DEVICES")) machine.gpus = visible(machine.gpus, names);
  find_links(nvml, machine);
  machine.host_memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                        static_cast<std::uint64_t>(::sysconf(_SC_PAGE_SIZE));
  machine.cores = std::max(1U, std::thread::hardware_concurrency());
  apply_limits(machine);
  return machine;
}

}  // namespace xdit::launch
