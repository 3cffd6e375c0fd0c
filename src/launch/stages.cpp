#include "launch/stages.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.h"
#include "parallel/plan_predict.h"

namespace xdit::launch {

std::optional<parallel::Plan> plan_refiner(const config::RunSpec& spec, const Models& models,
                                           const parallel::Plan& plan, const parallel::Machine& machine) {
  if (models.refiner == nullptr) return std::nullopt;
  parallel::Plan refiner =
      parallel::make_plan(parallel::with_degrees(spec, plan.mesh), *models.refiner, machine);
  const auto same = [](const parallel::RankPlan& a, const parallel::RankPlan& b) {
    return a.pictures.first == b.pictures.first && a.pictures.count == b.pictures.count;
  };
  if (!std::equal(plan.ranks.begin(), plan.ranks.end(), refiner.ranks.begin(), refiner.ranks.end(), same))
    throw Error(ExitCode::kUsage, "the refiner's pictures would be on other ranks than the model's",
                "--refiner", "--data, --cfg-parallel and --gather with a number each");
  return refiner;
}

bool fit_together(const config::RunSpec& spec, const parallel::Plan& plan,
                  const std::optional<parallel::Plan>& refiner_plan, const parallel::Machine& machine) {
  if (!refiner_plan) return true;
  std::map<std::int64_t, std::uint64_t> used;  // by device
  for (const parallel::Plan* both : {&plan, &*refiner_plan})
    for (const parallel::RankPlan& rank : both->ranks) used[rank.device] += rank.peak_memory;
  const bool on_cpu = spec.runtime.device == config::Device::kCpu;
  return std::all_of(used.begin(), used.end(), [&](const auto& device) {
    const std::uint64_t memory =
        on_cpu ? machine.host_memory : machine.gpus.at(static_cast<std::size_t>(device.first)).memory;
    return device.second <= memory;
  });
}

std::vector<pipeline::RankJob> stages_of(pipeline::RankJob job, const Models& models,
                                         const std::optional<parallel::Plan>& refiner_plan,
                                         std::shared_ptr<const comm::Job> peers) {
  std::vector<pipeline::RankJob> stages;
  if (refiner_plan) {
    job.stage = pipeline::Stage::kFirst;
    stages.push_back(job);
    stages.push_back({.spec = job.spec,
                      .model = *models.refiner,
                      .plan = *refiner_plan,
                      .rank = job.rank,
                      .model_hash = job.model_hash,
                      .paths = job.paths,
                      .stop = job.stop,
                      .peers = std::move(peers),
                      .stage = pipeline::Stage::kSecond,
                      .named = &job.model,
                      .last = job.last,
                      .previews = job.previews,
                      .started_s = job.started_s});
  } else {
    stages.push_back(std::move(job));
  }
  return stages;
}

}  // namespace xdit::launch
