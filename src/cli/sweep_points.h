#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/generate_options.h"
#include "cli/layers.h"
#include "config/sweep_profile.h"
#include "output/report.h"
#include "parallel/plan.h"
#include "parallel/plan_predict.h"

namespace xdit::cli {

/// Where a sweep writes: DIR, and the pictures' names in the folder of each point.
struct SweepPlace {
  std::filesystem::path folder;
  std::string names;  ///< "{index}.png"
};
/// Of -o: a folder, or one with the pictures' template behind it ("out/{seed}.png"). Error(kUsage).
[[nodiscard]] SweepPlace sweep_place(const std::string& output);

/// A point of a sweep: what it is, what came of it.
struct SweepPoint {
  config::Layer values;  ///< of the swept keys
  std::string label;     ///< "parallel.gpus 2, sampling.steps 20"
  std::filesystem::path folder;
  std::optional<Prepared> run{};  ///< writes into `folder`
  parallel::Plan plan{};
  std::vector<std::filesystem::path> pictures{};
  std::string group{};  ///< all settings but those of parallel: pictures of one group are to be equal
  std::optional<Error> fault{};  ///< why it cannot run, or what ended it

  std::optional<parallel::Prediction> predicted{};
  std::optional<output::Measured> measured{};  ///< once it is complete
  std::string equality{};                      ///< its pictures beside those of its group
  [[nodiscard]] bool exact() const { return plan.grade == config::Allow::kExact; }
  [[nodiscard]] std::filesystem::path profile() const { return folder / "profile.yaml"; }
  [[nodiscard]] std::filesystem::path report() const { return folder / "report.json"; }
};

/// What the run would take on such a machine, with more GPUs like its first if it asks for more; nothing on
/// the CPU, and where it could not run there either.
[[nodiscard]] std::optional<parallel::Prediction> prediction_of(const Prepared& run,
                                                                parallel::Machine machine);

/// Whether the others can still be tried after this fault of a point.
[[nodiscard]] bool ends_point_only(ExitCode code);

/// Settles and plans every point over `options`; a point that cannot run has its fault. Seeds of -1 follow
/// from `drawn_from`, alike in all points. `overwrite`: pictures may be there already.
[[nodiscard]] std::vector<SweepPoint> settle_points(const std::vector<config::Axis>& axes,
                                                    const GenerateOptions& options,
                                                    const char* const* environment, const SweepPlace& place,
                                                    std::uint64_t drawn_from, bool overwrite);

/// Whether the point's folder holds a run of the same settings.
[[nodiscard]] bool holds_same_run(const SweepPoint& point);
/// Whether it is complete there: report and whole pictures.
[[nodiscard]] bool is_complete(const SweepPoint& point);

/// Compares the point's pictures with those of the first one of its group among `before`, rather an exact
/// one, and writes `equality`. False when both are exact and differ.
[[nodiscard]] bool check_equality(SweepPoint& point, std::span<const SweepPoint> before);

}  // namespace xdit::cli
