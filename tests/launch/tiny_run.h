#pragma once
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/file.h"
#include "launch/launch.h"

namespace xdit::launch {

/// What a run tells.
struct Heard final : pipeline::Listener {
  void begin(std::string_view phase, std::int64_t /*steps*/) override { at_begin(phase); }
  void advance(std::int64_t /*done*/) override {}
  void finish() override {}
  void picture(std::int64_t /*index*/) override { ++pictures; }
  void warn(std::string_view line) override { warnings.emplace_back(line); }
  std::function<void(std::string_view)> at_begin = [](std::string_view) {};
  std::vector<std::string> warnings;
  int pictures = 0;
  StopToken stop;
};

/// On ranks of its own.
inline Outcome run(const config::RunSpec& spec, const Models& models, pipeline::Listener& listener,
                   const StopToken& stop) {
  Ranks ranks;
  return run(spec, models, ranks, listener, stop);
}

/// Of tests/data.
inline models::Model open_tiny(const std::filesystem::path& path = XDIT_TEST_DATA "/flux/tiny-dev",
                               bool dummy = false) {
  return models::open(path.string(), {}, {}, dummy);
}

/// Six small pictures.
inline config::RunSpec small_spec(const std::filesystem::path& folder, std::int64_t ranks) {
  ::setenv("OMP_NUM_THREADS", "1", 1);
  config::RunSpec spec;
  spec.model.dtype = DType::kF32;
  spec.runtime.device = config::Device::kCpu;
  spec.parallel.gpus = std::to_string(ranks);
  spec.prompts = {"a lighthouse on a cliff at dawn", "a fox"};
  spec.image = {.width = 48, .height = 32, .count = 3};
  spec.sampling.steps = 2;
  spec.sampling.seeds = {42};
  spec.sampling.max_sequence_length = 32;
  spec.output.path = (folder / "{index}.png").string();
  return spec;
}

inline std::vector<std::string> pngs(const std::filesystem::path& folder) {
  std::vector<std::string> all;
  for (int i = 0; std::filesystem::exists(folder / (std::to_string(i) + ".png")); ++i)
    all.push_back(read_file(folder / (std::to_string(i) + ".png"), ExitCode::kOutput));
  return all;
}

}  // namespace xdit::launch
