#pragma once
#include <string_view>
#include <vector>

#include "parallel/plan_machine.h"

namespace xdit::launch {

/// Those of a machine's GPUs that CUDA shows for this value of CUDA_VISIBLE_DEVICES, in its order: numbers,
/// or beginnings of UUIDs. What is of the other kind than the first, or names no GPU or several, ends the
/// list; a GPU that comes twice leaves none. A part of a GPU (MIG-...) is none.
[[nodiscard]] std::vector<parallel::Gpu> visible_gpus(const std::vector<parallel::Gpu>& all,
                                                      std::string_view names);

}  // namespace xdit::launch
