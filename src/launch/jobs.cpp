#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "launch/clock.h"
#include "launch/launch.h"
#include "launch/stages.h"
#include "parallel/plan_predict.h"

namespace xdit::launch {

namespace {

PlannedJob planned(config::RunSpec spec, const Models& models, const parallel::Machine& machine) {
  PlannedJob job{.spec = std::move(spec), .plan = {}};
  job.plan = parallel::make_plan(job.spec, models.model, machine);
  static_cast<void>(plan_refiner(job.spec, models, job.plan, machine));  // which ranks will do, too
  job.spec = parallel::with_degrees(std::move(job.spec), job.plan.mesh);
  return job;
}

// Of ranks that are there and hold the weights.
std::optional<double> seconds_of(const PlannedJob& job, const Models& models,
                                 const parallel::Machine& machine) {
  const auto all = parallel::predict(job.plan, models.model, machine, job.spec, models.refiner);
  return all ? std::optional(all->encode_s + all->denoise_s + all->decode_s + all->write_s) : std::nullopt;
}

Culprit culprit_of(std::int64_t rank, const PlannedJob& job, const parallel::Machine& machine) {
  if (job.spec.runtime.device == config::Device::kCpu) return {rank, {}};
  const std::int64_t device = job.plan.ranks.at(static_cast<std::size_t>(rank)).device;
  return {rank, machine.gpus.at(static_cast<std::size_t>(device)).uuid};
}

// The pictures `data` at a time, and what is left of them.
std::vector<PlannedJob> in_two(const config::RunSpec& spec, std::int64_t data, const Models& models,
                               const parallel::Machine& machine) {
  const std::vector<config::Picture> all = config::pictures(spec);
  const auto end = all.end() - std::ssize(all) % data;
  config::RunSpec rounds = spec, rest = spec;
  rounds.parallel.data = data;
  rounds.listed.assign(all.begin(), end);
  rest.listed.assign(end, all.end());
  return {planned(std::move(rounds), models, machine), planned(std::move(rest), models, machine)};
}

}  // namespace

void deal_out(config::RunSpec& spec, const parallel::Plan& plan) {
  const std::vector<config::Picture> in_order = config::pictures(spec);
  spec.listed.clear();
  for (const std::size_t picture : parallel::dealt_out(plan)) spec.listed.push_back(in_order.at(picture));
}

std::vector<PlannedJob> plan_jobs(const config::RunSpec& spec, const Models& models,
                                  const parallel::Machine& machine) {
  std::vector<PlannedJob> best{planned(spec, models, machine)};
  std::optional<double> least_s = seconds_of(best.front(), models, machine);
  const std::int64_t pictures = std::ssize(config::pictures(spec));
  const auto ranks = static_cast<std::int64_t>(best.front().plan.ranks.size());
  for (std::int64_t data = 2; least_s && !spec.parallel.data && data <= std::min(ranks, pictures); ++data) {
    if (ranks % data != 0 || pictures % data == 0) continue;
    try {
      std::vector<PlannedJob> two = in_two(spec, data, models, machine);
      double seconds = 0;
      bool stay = true;
      for (const PlannedJob& job : two) {
        seconds += seconds_of(job, models, machine).value();
        stay = stay && job.plan.grade == config::Allow::kExact && job.plan.keeps_weights();
      }
      if (!stay || seconds >= *least_s) continue;
      least_s = seconds;
      best = std::move(two);
    } catch (const Error&) {  // of no use
    }
  }
  for (PlannedJob& job : best) deal_out(job.spec, job.plan);
  return best;
}

void run_jobs(const std::vector<PlannedJob>& jobs, const Models& models, const std::string& model_hash,
              const std::vector<std::filesystem::path>& paths, const parallel::Machine& machine,
              pipeline::Listener& listener, const StopToken& stop, std::optional<Culprit>* culprit) {
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
    try {
      ranks.make(task, models, job.plan, listener, stop, report);
    } catch (const Error&) {
      if (const auto rank = ranks.culprit(); rank && culprit != nullptr)
        *culprit = culprit_of(*rank, job, machine);
      throw;
    }
  }
}

}  // namespace xdit::launch
