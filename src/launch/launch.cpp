#include "launch/launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <set>
#include <utility>

#include "core/error.h"
#include "launch/clock.h"
#include "launch/join.h"
#include "launch/rank_process.h"
#include "launch/stages.h"
#include "launch/watch.h"
#include "output/finish.h"
#include "output/path_template.h"
#include "parallel/plan_predict.h"
#include "weights/model_files.h"

namespace xdit::launch {
namespace {

/// What a rank other than 0 shows of itself.
class WithoutProgress final : public pipeline::Listener {
 public:
  explicit WithoutProgress(pipeline::Listener& to) : to_(to) {}
  void begin(std::string_view /*phase*/, std::int64_t /*steps*/) override {}
  void advance(std::int64_t /*done*/) override {}
  void finish() override {}
  void picture(std::int64_t index) override { to_.picture(index); }
  void warn(std::string_view line) override { to_.warn(line); }

 private:
  pipeline::Listener& to_;
};

std::string device_name(const parallel::Machine& machine, const config::RunSpec& spec, std::int64_t device) {
  if (spec.runtime.device == config::Device::kCpu) return "cpu";
  return machine.gpus.at(static_cast<std::size_t>(device)).name;
}

// UUIDs of the plan's GPUs.
std::vector<std::string> gpus_of(const parallel::Plan& plan, const parallel::Machine& machine,
                                 const config::RunSpec& spec) {
  std::set<std::string> gpus;
  if (spec.runtime.device == config::Device::kCuda)
    for (const parallel::RankPlan& rank : plan.ranks)
      gpus.insert(machine.gpus.at(static_cast<std::size_t>(rank.device)).uuid);
  return {gpus.begin(), gpus.end()};
}

// Report, trace and previews have places of their own, and replace nothing that is not `own`.
void check_other_files(const config::RunSpec& spec, const std::vector<std::filesystem::path>& pictures,
                       const std::map<std::int64_t, std::filesystem::path>& previews, bool writes_previews,
                       std::set<std::filesystem::path>* own) {
  std::set<std::filesystem::path> taken;
  for (const std::filesystem::path& picture : pictures) taken.insert(output::whole_path(picture));
  for (const auto& [index, preview] : previews) {
    const bool replaces = !writes_previews || (own != nullptr && own->contains(preview));
    if (taken.insert(output::whole_path(preview)).second)
      output::check_output(preview, spec.output.overwrite || replaces);
  }
  for (const auto& [flag, file] :
       {std::pair{"--report", spec.output.report}, {"--trace", spec.output.trace}}) {
    if (file.empty()) continue;
    if (!taken.insert(output::whole_path(file)).second)
      throw Error(ExitCode::kUsage, "another file of the run is to be written there",
                  fmt::format("{} {}", flag, file), fmt::format("another name with {}", flag));
    output::check_output(file, spec.output.overwrite);
  }
  if (own != nullptr)
    for (const auto& [index, preview] : previews) own->insert(preview);
}

// This process is the rank.
void run_joined(const pipeline::RankJob& job, pipeline::Listener& listener, output::Report& report) {
  const double from_s = now_s();
  const std::unique_ptr<pipeline::Rank> rank = make_rank();
  const double to_s = now_s();
  report.phases.push_back({"start.libraries", from_s - job.started_s, to_s - job.started_s, job.rank});
  report.phases.push_back({"start", 0, to_s - job.started_s, job.rank});
  rank->run(job, listener, report);
}

// What the launcher does before ranks start.
class Beginnings {
 public:
  explicit Beginnings(double started_s) : started_s_(started_s), from_s_(started_s) {}
  void over(const char* part) {
    parts_.push_back({part, from_s_ - started_s_, now_s() - started_s_});
    from_s_ = now_s();
  }
  void add_to(output::Report& report) {
    for (const output::RankUse& use : report.ranks)
      for (output::Phase& part : parts_) {
        part.rank = use.rank;
        report.phases.push_back(part);
      }
  }

 private:
  double started_s_, from_s_;
  std::vector<output::Phase> parts_;
};

}  // namespace

Outcome run(const config::RunSpec& asked, const Models& models, Makers& makers, pipeline::Listener& listener,
            const StopToken& stop, const Manner& manner) {
  Outcome outcome;
  const models::Model& model = models.model;
  const double started_s = manner.started_s.value_or(now_s());
  Beginnings beginnings(started_s);
  beginnings.over("start.settings");
  const parallel::Machine machine = this_machine();
  beginnings.over("start.machine");
  const std::optional<Place> place = joined_place(&std::getenv);
  config::RunSpec spec = place ? joined_spec(asked, *place, machine.gpus.size()) : asked;
  const std::vector<config::Picture> pictures = config::pictures(spec);
  outcome.paths = output::output_paths(spec.output.path, pictures, spec.date, spec.output.overwrite);
  std::map<std::int64_t, std::filesystem::path> paths;
  for (std::size_t i = 0; i < pictures.size(); ++i) paths[pictures[i].index] = outcome.paths[i];
  const std::map<std::int64_t, std::filesystem::path> previews = preview_paths(spec, model, paths);
  check_other_files(spec, outcome.paths, previews, !place || place->rank == 0, manner.previews);
  if (place)  // machines may differ: a rule decides
    spec = parallel::with_degrees(spec, parallel::choose_mesh(spec, model.shape, place->ranks));
  outcome.plan = parallel::make_plan(spec, model, machine);
  const config::RunSpec unsettled = std::exchange(spec, parallel::with_degrees(spec, outcome.plan.mesh));
  if (place && models.refiner != nullptr)
    throw Error(ExitCode::kUsage, "the refiner works on ranks that xdit-gen starts itself", "--refiner",
                "--gpus, without torchrun, srun or mpirun");
  static_cast<void>(plan_refiner(spec, models, outcome.plan, machine));  // which ranks will do, too
  deal_out(spec, outcome.plan);
  const std::int64_t first_rank = place ? place->rank : 0;
  if (first_rank == 0)
    for (const std::string& note : outcome.plan.notes) listener.warn(note);

  output::Report& report = outcome.report;
  report.version = XDIT_VERSION;
  report.model = model.files.name;
  report.model_hash = model.dummy ? "dummy" : weights::model_hash(model.files);
  for (const config::Key& key : config::keys())
    report.settings[std::string(key.path)] = key.print(unsettled, key);
  for (const auto& [name, degree] : outcome.plan.mesh.degrees()) report.grid[name] = degree;
  report.pictures = outcome.paths;
  beginnings.over("start.plan");

  if (place) {
    std::optional<pipeline::Meeting> meeting;
    if (outcome.plan.exchanges()) meeting = meeting_place(&std::getenv);
    WithoutProgress quiet(listener);
    run_joined({.spec = spec,
                .model = model,
                .plan = outcome.plan,
                .rank = first_rank,
                .model_hash = report.model_hash,
                .paths = paths,
                .stop = stop,
                .peers = nullptr,
                .meeting = meeting,
                .previews = previews,
                .started_s = started_s},
               first_rank == 0 ? listener : static_cast<pipeline::Listener&>(quiet), report);
  } else {
    const bool watched = manner.watched || !spec.output.report.empty();
    std::vector<std::int64_t> order(pictures.size());
    std::transform(pictures.begin(), pictures.end(), order.begin(), [](const auto& p) { return p.index; });
    Watch watch(listener, std::move(order),
                watched ? gpus_of(outcome.plan, machine, spec) : std::vector<std::string>{}, started_s);
    try {
      makers.make({.spec = spec,
                   .machine = machine,
                   .paths = std::move(paths),
                   .previews = previews,
                   .model_hash = report.model_hash,
                   .weights = weights_text(spec, models, report.model_hash),
                   .last = manner.last,
                   .started_s = started_s,
                   .umask = current_umask()},
                  models, outcome.plan, watch, stop, report);
    } catch (...) {
      watch.end();  // what is finished stays
      throw;
    }
    report.readings = watch.readings();
  }
  for (output::RankUse& use : report.ranks) {
    const std::int64_t device = outcome.plan.ranks.at(static_cast<std::size_t>(use.rank)).device;
    use.device = device_name(machine, spec, device);
    if (spec.runtime.device == config::Device::kCuda)
      use.device_id = machine.gpus.at(static_cast<std::size_t>(device)).uuid;
  }
  beginnings.add_to(report);
  output::end_at(report, now_s() - started_s);
  if (!spec.output.report.empty() && first_rank == 0)
    output::write_report(report, spec.output.report, spec.output.overwrite);
  return outcome;
}

}  // namespace xdit::launch
