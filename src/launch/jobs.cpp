#include <algorithm>
#include <set>
#include <utility>

#include "launch/clock.h"
#include "launch/launch.h"
#include "launch/stages.h"

namespace xdit::launch {

void deal_out(config::RunSpec& spec, const parallel::Plan& plan) {
  std::set<std::pair<std::int64_t, std::int64_t>> shares;  // first and count, one of each picture's ranks
  for (const parallel::RankPlan& rank : plan.ranks)
    if (rank.pictures.count > 0) shares.emplace(rank.pictures.first, rank.pictures.count);
  const std::vector<config::Picture> in_order = config::pictures(spec);
  spec.listed = in_order;
  auto next = in_order.begin();
  for (std::int64_t turn = 0; next != in_order.end(); ++turn)
    for (const auto& [first, count] : shares)
      if (turn < count) spec.listed.at(static_cast<std::size_t>(first + turn)) = *next++;
}

PlannedJob plan_job(config::RunSpec spec, const Models& models, const parallel::Machine& machine) {
  PlannedJob job{.spec = std::move(spec), .plan = {}};
  job.plan = parallel::make_plan(job.spec, models.model, machine);
  static_cast<void>(plan_refiner(job.spec, models, job.plan, machine));  // which ranks will do, too
  deal_out(job.spec, job.plan);
  return job;
}

void run_jobs(const std::vector<PlannedJob>& jobs, const Models& models, const std::string& model_hash,
              const std::vector<std::filesystem::path>& paths, const parallel::Machine& machine,
              pipeline::Listener& listener, const StopToken& stop) {
  Ranks ranks;
  for (const PlannedJob& job : jobs) {
    Task task{.spec = job.spec,
              .machine = machine,
              .model_hash = model_hash,
              .last = &job == &jobs.back(),
              .started_s = now_s(),
              .umask = current_umask()};
    for (const config::Picture& picture : job.spec.listed)
      task.paths[picture.index] = paths.at(static_cast<std::size_t>(picture.index));
    task.previews = preview_paths(job.spec, models.model, task.paths);
    output::Report report;
    ranks.make(task, models, job.plan, listener, stop, report);
  }
}

}  // namespace xdit::launch
