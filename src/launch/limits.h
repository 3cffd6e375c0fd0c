#pragma once
#include <filesystem>

#include "parallel/plan_machine.h"

namespace xdit::launch {

/// Lowers a machine's memory and cores to what this process's control groups, and those around them, leave of
/// it (cgroup v2's memory.max and cpu.max, v1's memory.limit_in_bytes). `root`: where /proc and /sys are.
void apply_limits(parallel::Machine& machine, const std::filesystem::path& root = "/");

}  // namespace xdit::launch
