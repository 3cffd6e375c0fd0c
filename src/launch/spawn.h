#pragma once
#include <cstdint>
#include <vector>

#include "core/stop.h"
#include "output/report.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// A process for each rank of the plans, which have as many each; it takes the jobs one after another.
/// `cores`: of the machine. Throws Error; then no process is left.
void spawn(const std::vector<pipeline::RankJob>& jobs, std::int64_t cores, pipeline::Listener& listener,
           const StopToken& stop, output::Report& report);

}  // namespace xdit::launch
