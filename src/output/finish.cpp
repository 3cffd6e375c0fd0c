#include "output/finish.h"

#include <algorithm>

#include "output/stretches.h"

namespace xdit::output {

double end_of(const Report& report, std::int64_t rank) {
  double end_s = 0;
  for (const Phase& phase : report.phases)
    if (phase.rank == rank) end_s = std::max(end_s, phase.end_s);
  return end_s;
}

void add_finish(Report& report, std::int64_t rank, double end_s, bool ends) {
  double worked_s = 0;
  for (const Phase& phase : report.phases)
    if (phase.rank == rank && !is_part(phase)) worked_s = std::max(worked_s, phase.end_s);
  const double told_s = end_of(report, rank);
  end_s = std::max(end_s, told_s);
  if (ends) report.phases.push_back({"finish.exit", told_s, end_s, rank});
  report.phases.push_back({"finish", worked_s, end_s, rank});
}

void end_at(Report& report, double wall_s) {
  report.wall_s = wall_s;
  const std::int64_t last = last_at_work(report);
  if (last < 0) return;
  std::erase_if(report.phases, [&](const Phase& p) { return p.rank == last && p.name == "finish"; });
  add_finish(report, last, wall_s, /*ends=*/false);
}

}  // namespace xdit::output
