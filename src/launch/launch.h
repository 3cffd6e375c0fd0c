#pragma once
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/run_spec.h"
#include "config/settings.h"
#include "core/stop.h"
#include "launch/ranks.h"
#include "launch/survivors.h"
#include "models/registry.h"
#include "output/report.h"
#include "parallel/plan.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// GPUs as CUDA would show them (CUDA_VISIBLE_DEVICES by index or UUID), read through NVML: no CUDA context
/// is made. No driver: no GPUs.
[[nodiscard]] parallel::Machine this_machine();

struct Outcome {
  parallel::Plan plan;
  output::Report report;
  std::vector<std::filesystem::path> paths;  ///< of the pictures, in the run's order
};

/// How a run is made, besides what it is.
struct Manner {
  bool last = true;                   ///< the ranks need not stay
  bool watched = false;               ///< GPUs are read while it runs, as they are where a report is written
  std::optional<double> started_s{};  ///< time 0 of the report, on now_s's clock; not before run() if unset
  /// Of the caller's runs so far, which may be replaced; this run's are added.
  std::set<std::filesystem::path>* previews = nullptr;
};

/// Checks the output paths, plans, has the pictures made and writes the report, if asked. Under torchrun,
/// srun or mpirun this process is a rank itself. Throws Error; no partial file is left.
[[nodiscard]] Outcome run(const config::RunSpec& spec, const Models& models, Makers& makers,
                          pipeline::Listener& listener, const StopToken& stop, const Manner& manner = {});

/// Pictures of one shape, which a RunSpec lists, and who makes them.
struct PlannedJob {
  config::RunSpec spec;
  parallel::Plan plan;
};
/// Deals the pictures of a run out to the plan's ranks so that they are finished in about their order.
void deal_out(config::RunSpec& spec, const parallel::Plan& plan);
/// One job, or where that is predicted to be over sooner two: pictures that fill all shares, and the rest.
/// Their pictures are dealt out. Error as make_plan's.
[[nodiscard]] std::vector<PlannedJob> plan_jobs(const config::RunSpec& spec, const Models& models,
                                                const parallel::Machine& machine);

/// Makes the pictures of all jobs on ranks that stay from the first to the last; `paths` by Picture::index. A
/// picture that fails alone is told to `listener`. Throws Error, and says in `culprit` whose it is if it is a
/// rank's; what is finished stays.
void run_jobs(const std::vector<PlannedJob>& jobs, const Models& models, const std::string& model_hash,
              const std::vector<std::filesystem::path>& paths, const parallel::Machine& machine,
              pipeline::Listener& listener, const StopToken& stop, std::optional<Culprit>* culprit = nullptr);

}  // namespace xdit::launch
