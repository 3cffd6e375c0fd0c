#pragma once
#include <cstdint>
#include <functional>
#include <optional>

#include "config/run_spec.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// This process's place among those that torchrun, mpirun or srun started.
struct Place {
  std::int64_t rank = 0;
  std::int64_t ranks = 1;
};

/// From their variables, read with `variable` (as std::getenv); nothing when none started more than one.
/// Error(kUsage) for values that make no sense and for ranks on several machines.
[[nodiscard]] std::optional<Place> joined_place(const std::function<const char*(const char*)>& variable);

/// Where they meet. Error(kUsage) where the variables do not say it.
[[nodiscard]] pipeline::Meeting meeting_place(const std::function<const char*(const char*)>& variable);

/// The run with a rank for each started process: --gpus 1 (unset) and all give way, another number is
/// Error(kUsage). `visible`: GPUs that this process sees; a launcher that shows each process its own GPU
/// makes every rank use device 0.
[[nodiscard]] config::RunSpec joined_spec(config::RunSpec spec, const Place& place, std::size_t visible);

}  // namespace xdit::launch
