#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "config/run_spec.h"
#include "config/settings.h"
#include "core/stop.h"
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

/// Checks the output paths, plans, runs one rank a device and writes the pictures (and report and trace, if
/// asked). Throws Error; no partial file is left.
[[nodiscard]] Outcome run(const config::RunSpec& spec, const models::Model& model,
                          pipeline::Listener& listener, const StopToken& stop);

}  // namespace xdit::launch
