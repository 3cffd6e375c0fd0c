#pragma once
#include <string>

#include "cli/layers.h"
#include "parallel/plan_machine.h"

namespace xdit::cli {

/// The plan of a run, and of its refiner, for people.
[[nodiscard]] std::string plan_text(const Prepared& run, const parallel::Machine& machine);

}  // namespace xdit::cli
