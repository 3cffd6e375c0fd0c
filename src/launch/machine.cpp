#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "launch/launch.h"
#include "launch/nvml.h"

namespace xdit::launch {
namespace {

// No pair of GPUs is said to have no way to each other's memory.
bool peer_access(const Nvml& nvml) {
  for (std::size_t i = 0; i < nvml.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (!nvml.pair(i, j).access) return false;
  return true;
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
  machine.peer_access = launch::peer_access(nvml);
  if (const char* names = std::getenv("CUDA_VISIBLE_DEVICES")) machine.gpus = visible(machine.gpus, names);
  machine.host_memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                        static_cast<std::uint64_t>(::sysconf(_SC_PAGE_SIZE));
  machine.cores = std::max(1U, std::thread::hardware_concurrency());
  return machine;
}

}  // namespace xdit::launch
