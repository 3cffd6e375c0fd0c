#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_spec.h"
#include "core/stop.h"
#include "models/registry.h"
#include "parallel/plan.h"
#include "pipeline/rank.h"

extern "C" xdit::pipeline::Rank* xdit_make_rank();

namespace xdit::test {

/// Remembers what it is told; stops the run after so many steps, if asked.
class Recorder final : public pipeline::Listener {
 public:
  void begin(std::string_view phase, std::int64_t /*steps*/) override { phases.emplace_back(phase); }
  void advance(std::int64_t /*done*/) override {
    if (++steps == stop_after) stop.request(2);
  }
  void finish() override {}
  void picture(std::int64_t index) override { pictures.push_back(index); }
  void warn(std::string_view line) override { warnings.emplace_back(line); }

  std::vector<std::string> phases;
  std::vector<std::string> warnings;
  std::vector<std::int64_t> pictures;
  std::int64_t steps = 0;
  std::int64_t stop_after = -1;
  StopToken stop;
};

/// Runs one CPU rank in this process; the pictures go to folder/0.png, folder/1.png ... A refiner finishes
/// them.
inline output::Report run(const config::RunSpec& spec, const models::Model& model,
                          const std::filesystem::path& folder, Recorder& recorder,
                          const models::Model* refiner = nullptr) {
  output::Report report;
  const parallel::Machine machine{.gpus = {}, .host_memory = std::uint64_t{64} << 30U, .cores = 2};
  const parallel::Plan plan = parallel::make_plan(spec, model, machine);
  std::map<std::int64_t, std::filesystem::path> paths;
  for (const config::Picture& picture : config::pictures(spec))
    paths[picture.index] = folder / (std::to_string(picture.index) + ".png");
  const parallel::Plan second = refiner == nullptr ? plan : parallel::make_plan(spec, *refiner, machine);
  const auto job = [&](const models::Model& of, const parallel::Plan& by, pipeline::Stage stage) {
    return pipeline::RankJob{.spec = spec,
                             .model = of,
                             .plan = by,
                             .rank = 0,
                             .model_hash = std::string(64, '0'),
                             .paths = paths,
                             .stop = recorder.stop,
                             .peers = nullptr,
                             .stage = stage,
                             .named = &model,
                             .started_s = 0};
  };
  using pipeline::Stage;
  const std::unique_ptr<pipeline::Rank> rank(xdit_make_rank());
  rank->run(job(model, plan, refiner == nullptr ? Stage::kWhole : Stage::kFirst), recorder, report);
  if (refiner != nullptr) rank->run(job(*refiner, second, Stage::kSecond), recorder, report);
  return report;
}

/// A small run on the CPU in float32.
inline config::RunSpec small_spec() {
  config::RunSpec spec;
  spec.model.dtype = DType::kF32;
  spec.runtime.device = config::Device::kCpu;
  spec.prompts = {"a lighthouse on a cliff at dawn"};
  spec.image = {.width = 48, .height = 32, .count = 1};
  spec.sampling.steps = 2;
  spec.sampling.seeds = {42};
  spec.sampling.max_sequence_length = 32;
  return spec;
}

}  // namespace xdit::test
