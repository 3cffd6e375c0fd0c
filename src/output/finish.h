#pragma once
#include <cstdint>

#include "output/report.h"

namespace xdit::output {

/// When the last of a rank's phases and their parts ends.
[[nodiscard]] double end_of(const Report& report, std::int64_t rank);

/// Adds what follows a rank's last phase: "finish", up to `end_s`. With it `ends` the rank's process: what
/// the rank itself does not tell is "finish.exit".
void add_finish(Report& report, std::int64_t rank, double end_s, bool ends);

/// The run is over at `wall_s`, and so is the finish of the rank that was at work last.
void end_at(Report& report, double wall_s);

}  // namespace xdit::output
