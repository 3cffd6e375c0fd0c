#include <algorithm>
#include <set>
#include <utility>

#include "launch/clock.h"
#include "launch/launch.h"
#include "launch/spawn.h"
#include "launch/stages.h"

namespace xdit::launch {

PlannedJob plan_job(config::RunSpec spec, const Models& models, const parallel::Machine& machine) {
  PlannedJob job{.spec = std::move(spec), .plan = {}};
  job.plan = parallel::make_plan(job.spec, models.model, machine);
  job.refiner_plan = plan_refiner(job.spec, models, job.plan, machine);
  std::set<std::pair<std::int64_t, std::int64_t>> shares;  // first and count, one of each picture's ranks
  for (const parallel::RankPlan& rank : job.plan.ranks)
    if (rank.pictures.count > 0) shares.emplace(rank.pictures.first, rank.pictures.count);
  const std::vector<config::Picture> in_order = job.spec.listed;
  auto next = in_order.begin();
  for (std::int64_t turn = 0; next != in_order.end(); ++turn)
    for (const auto& [first, count] : shares)
      if (turn < count) job.spec.listed.at(static_cast<std::size_t>(first + turn)) = *next++;
  return job;
}

output::Report run_jobs(const std::vector<PlannedJob>& jobs, const Models& models,
                        const std::string& model_hash, const std::vector<std::filesystem::path>& paths,
                        const parallel::Machine& machine, pipeline::Listener& listener,
                        const StopToken& stop) {
  output::Report report;
  const double started_s = now_s();
  std::vector<pipeline::RankJob> all;
  all.reserve(2 * jobs.size());
  const bool stay = std::all_of(jobs.begin(), jobs.end(), [&](const PlannedJob& job) {
    return fit_together(job.spec, job.plan, job.refiner_plan, machine);
  });
  for (const PlannedJob& job : jobs) {
    std::shared_ptr<const comm::Job> peers;  // made before the ranks are forked, which inherit it
    if (job.plan.exchanges()) peers = comm::Job::create(static_cast<int>(job.plan.mesh.size()));
    const pipeline::RankJob one{.spec = job.spec,
                                .model = models.model,
                                .plan = job.plan,
                                .model_hash = model_hash,
                                .paths = paths,
                                .stop = stop,
                                .peers = peers,
                                .last = !stay || &job == &jobs.back(),
                                .started_s = started_s};
    add_stages(all, one, models, job.refiner_plan);
  }
  spawn(all, machine.cores, listener, stop, report);
  report.wall_s = now_s() - started_s;
  return report;
}

}  // namespace xdit::launch
