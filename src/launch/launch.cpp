#include "launch/launch.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <chrono>
#include <ctime>

#include "core/error.h"
#include "output/path_template.h"
#include "weights/model_files.h"

namespace xdit::launch {
namespace {

constexpr const char* kRankLibrary = "libxdit-rank.so";

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Opened here and not linked: LibTorch takes half a second to load, and only a rank needs it. Never closed,
// since LibTorch cannot be unloaded.
pipeline::RunRank* open_rank_library() {
  void* library = ::dlopen(kRankLibrary, RTLD_NOW | RTLD_LOCAL);  // by the executable's RUNPATH
  if (library == nullptr)
    throw Error(ExitCode::kInternal, fmt::format("cannot load {}: {}", kRankLibrary, ::dlerror()), {},
                "scripts/build, or LD_LIBRARY_PATH=.../site-packages/torch/lib (LibTorch 2.11.0)");
  void* entry = ::dlsym(library, pipeline::kRunRankSymbol);
  XDIT_ASSERT(entry != nullptr);
  return reinterpret_cast<pipeline::RunRank*>(entry);
}

std::string device_name(const parallel::Machine& machine, const config::RunSpec& spec, std::int64_t device) {
  if (spec.runtime.device == config::Device::kCpu) return "cpu";
  return machine.gpus.at(static_cast<std::size_t>(device)).name;
}

}  // namespace

Outcome run(const config::RunSpec& spec, const models::Model& model, pipeline::Listener& listener,
            const StopToken& stop) {
  Outcome outcome;
  const double started_s = now_s();
  const std::vector<config::Picture> pictures = config::pictures(spec);
  outcome.paths = output::output_paths(spec.output.path, pictures, output::local_date(std::time(nullptr)),
                                       spec.output.overwrite);
  const parallel::Machine machine = this_machine();
  outcome.plan = parallel::make_plan(spec, model, machine);

  output::Report& report = outcome.report;
  report.version = XDIT_VERSION;
  report.model = model.files.name;
  report.model_hash = model.dummy ? "dummy" : weights::model_hash(model.files);
  for (const config::Key& key : config::keys()) report.settings[std::string(key.path)] = key.print(spec, key);
  const parallel::Mesh& mesh = outcome.plan.mesh;
  report.grid = {{"data", mesh.data},    {"cfg", mesh.cfg},       {"pipefusion", mesh.pipefusion},
                 {"ring", mesh.ring},    {"gather", mesh.gather}, {"ulysses", mesh.ulysses},
                 {"tensor", mesh.tensor}};
  report.pictures = outcome.paths;

  pipeline::RunRank* run_rank = open_rank_library();
  report.phases.push_back({"start", 0, now_s() - started_s, 0, -1, -1});
  run_rank({.spec = spec,
            .model = model,
            .plan = outcome.plan,
            .rank = 0,
            .model_hash = report.model_hash,
            .paths = outcome.paths,
            .stop = stop,
            .started_s = started_s},
           listener, report);
  for (output::RankUse& use : report.ranks) {
    const std::int64_t device = outcome.plan.ranks.at(static_cast<std::size_t>(use.rank)).device;
    use.device = device_name(machine, spec, device);
    if (spec.runtime.device == config::Device::kCuda)
      use.device_id = machine.gpus.at(static_cast<std::size_t>(device)).uuid;
  }
  report.wall_s = now_s() - started_s;
  if (!spec.output.report.empty()) output::write_report(report, spec.output.report, spec.output.overwrite);
  return outcome;
}

}  // namespace xdit::launch
