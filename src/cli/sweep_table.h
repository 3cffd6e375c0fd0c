#pragma once
#include <vector>

#include "cli/sweep_points.h"
#include "output/plot.h"
#include "output/table.h"

namespace xdit::cli {

/// A row for each point that is complete or cannot run. Speed-up and efficiency are those over the first
/// complete point of its group.
[[nodiscard]] output::Table table_of(const std::vector<config::Axis>& axes,
                                     const std::vector<SweepPoint>& points);

/// Speed-up over GPUs where a sweep varies them, else seconds over its first key; a line for each choice of
/// the other keys.
[[nodiscard]] output::Plot plot_of(const std::vector<config::Axis>& axes,
                                   const std::vector<SweepPoint>& points);

}  // namespace xdit::cli
