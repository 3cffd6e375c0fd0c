#include "launch/limits.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;

// This process's in the hierarchy of a controller; v2's has no name. Lines are id:controllers:path.
std::optional<fs::path> group_of(const fs::path& root, std::string_view controller) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    if (line.substr(first + 1, second - first - 1) == controller) return line.substr(second + 1);
  }
  return std::nullopt;
}

template <class Use>
void for_group_and_parents(const fs::path& mount, fs::path group, const char* name, const Use& use) {
  for (;; group = group.parent_path()) {
    if (std::ifstream file(mount / group.relative_path() / name); file) use(file);
    if (!group.has_relative_path()) return;
  }
}

}  // namespace

void apply_limits(parallel::Machine& machine, const fs::path& root) {
  const auto limit_memory = [&](std::istream& file) {
    if (std::uint64_t bytes = 0; file >> bytes) machine.host_memory = std::min(machine.host_memory, bytes);
  };
  const auto limit_cores = [&](std::istream& file) {  // microseconds of each period, over all cores
    double quota = 0;
    double period = 0;
    if (!(file >> quota >> period) || period <= 0) return;
    const double cores = std::max(1.0, std::ceil(quota / period));
    if (cores < static_cast<double>(machine.cores)) machine.cores = static_cast<std::int64_t>(cores);
  };
  const fs::path mount = root / "sys/fs/cgroup";
  if (const std::optional<fs::path> group = group_of(root, "")) {
    for_group_and_parents(mount, *group, "memory.max", limit_memory);
    for_group_and_parents(mount, *group, "cpu.max", limit_cores);
  }
  if (const std::optional<fs::path> group = group_of(root, "memory"))
    for_group_and_parents(mount / "memory", *group, "memory.limit_in_bytes", limit_memory);
}

}  // namespace xdit::launch
