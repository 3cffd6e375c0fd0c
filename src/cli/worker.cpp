#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iostream>
#include <random>
#include <set>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/generate_options.h"
#include "cli/layers.h"
#include "cli/worker_events.h"
#include "cli/worker_jobs.h"
#include "launch/launch.h"
#include "output/metadata.h"
#include "output/path_template.h"

namespace xdit::cli {
namespace {

constexpr int kIdlePollMs = 200;  // a signal that arrives just before poll() waits so long

using Listed = std::vector<config::Picture>;

class Worker {
 public:
  Worker(const Call& call, GenerateOptions options) : call_(call), options_(std::move(options)) {}

  /// Until stdin ends or a signal comes; the pictures in hand are finished for SIGTERM.
  void run() {
    while (call_.stop.signal() == 0) {
      look();
      if (jobs_.ended()) return;
      if (std::optional<WorkerJob> job = jobs_.next()) {
        work(*job);
        continue;
      }
      pollfd readable{jobs_.descriptor(), POLLIN, 0};
      ::poll(&readable, 1, kIdlePollMs);
    }
    while (const std::optional<WorkerJob> job = jobs_.next()) WorkerEvents(job->id).cancelled();
    call_.stop.check();
  }

 private:
  // Also while ranks work.
  void look() {
    if (call_.stop.signal() == SIGINT) stop_.request(SIGINT);
    const auto cancel = [this](const Json& id, const std::string& where) {
      if (current_ == id)
        stop_.request(SIGINT);
      else if (jobs_.remove(id))
        WorkerEvents(id).cancelled();
      else
        WorkerEvents(id).refused(Error(ExitCode::kUsage, "no job of this id waits or is in hand", where,
                                       "the id of a job that has not ended"));
    };
    jobs_.read(cancel, [](const Json& id, const Error& why) { WorkerEvents(id).failed(why); });
    aside_.descriptor = jobs_.descriptor();
  }

  void work(const WorkerJob& job) {
    WorkerEvents events(job.id);
    current_ = job.id;
    stop_.request(0);
    try {
      if (job.fault) throw *job.fault;
      make(job, events) ? events.done() : events.cancelled();
    } catch (const Error& error) {
      if (stop_.signal() != 0)
        events.cancelled();
      else
        events.failed(error);
    }
    current_ = nullptr;
  }

  // False when it was cut short.
  bool make(const WorkerJob& job, WorkerEvents& events) {
    GenerateOptions options = options_;
    if (!job.profile.empty()) options.profile = job.profile;
    options.job = job.settings;
    std::random_device entropy;
    Prepared run = prepare(options, call_.environment, [&] { return std::uint64_t{entropy()}; });
    for (const std::string& warning : run.resolved.warnings) events.warn(warning);
    config::RunSpec& spec = run.resolved.spec;
    spec.output.report.clear();
    spec.output.trace.clear();
    const Listed pictures = config::pictures(spec);
    const std::vector<std::filesystem::path> paths =
        output::output_paths(spec.output.path, pictures, spec.date, spec.output.overwrite);
    WorkerEvents::Pictures expected;
    for (std::size_t i = 0; i < pictures.size(); ++i)
      expected.emplace(
          pictures[i].index,
          nlohmann::ordered_json::parse(picture_json(
              paths[i], pictures[i].index, output::record_of(spec, pictures[i], run.model.files.name, {}))));
    events.expect(std::move(expected));

    // As many at once as there are ranks for other pictures: the job ends between two of these.
    const parallel::Plan plan = parallel::make_plan(spec, run.model, launch::this_machine());
    const auto at_once = static_cast<std::size_t>(plan.mesh.data);
    for (std::size_t first = 0; first < pictures.size(); first += at_once) {
      if (call_.stop.signal() != 0) return false;
      const auto begin = pictures.begin() + static_cast<std::ptrdiff_t>(first);
      spec.listed.assign(begin,
                         begin + static_cast<std::ptrdiff_t>(std::min(at_once, pictures.size() - first)));
      events.add(
          launch::run(spec, run.models(), ranks_, events, stop_, {.last = false, .previews = &previews_})
              .report);
      if (events.failure()) throw *events.failure();
    }
    return true;
  }

  const Call& call_;
  GenerateOptions options_;
  WorkerJobs jobs_{STDIN_FILENO};
  Json current_;                              // the id of the job in hand
  StopToken stop_;                            // of that job
  std::set<std::filesystem::path> previews_;  // of all jobs
  launch::Aside aside_{.look = [this] { look(); }};
  launch::Ranks ranks_{/*stay=*/true, aside_};
};

ExitCode worker(const Call& call) {
  refuse_what_is_of_one_run(call.flags, "a worker", /*takes_stdin=*/true);
  Worker(call, read_generate_options(call.flags, std::cin)).run();
  return ExitCode::kOk;
}

}  // namespace

Command worker_command() {
  return {
      .name = "worker",
      .arguments = "",
      .positionals = 0,
      .meaning = "pictures for jobs on stdin ({\"id\": 1, \"prompt\": \"a fox\"} a line), results on stdout",
      .examples = R"(xdit-gen worker -m models/FLUX.1-dev < jobs.jsonl
xdit-gen worker --gpus all -o "out/{date}/{seed}.png"
)",
      .add_flags = add_generate_flags,
      .run = worker};
}

}  // namespace xdit::cli
