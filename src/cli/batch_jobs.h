#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/layers.h"
#include "config/batch_file.h"
#include "config/run_spec.h"
#include "output/manifest.h"

namespace xdit::cli {

/// A line of a batch with all settings known, or with its fault.
struct BatchEntry {
  std::string line;  ///< "prompts.jsonl:12"
  config::RunSpec spec{};
  std::vector<config::Picture> pictures{};  ///< index counts over the batch; a line with a fault takes one
  std::optional<Error> fault{};
};

/// Settles every line over the settings of `run`, the batch's own. Indexes, and seeds of -1, follow from the
/// line's place: the same when the batch of `manifest` goes on. `places` becomes what it is to record.
[[nodiscard]] std::vector<BatchEntry> settle(const std::vector<config::BatchLine>& lines, const Prepared& run,
                                             const output::Manifest& manifest,
                                             std::vector<output::Manifest::Place>& places);

/// Entries' pictures for which `wanted` says so, as specs that list them: one a launch, for pictures of which
/// one plan holds; in it those with the same settings beside each other, and of these those with the same
/// prompt; at most `prompts` of them each. The order is that of the file, but for this.
[[nodiscard]] std::vector<config::RunSpec> group(const std::vector<BatchEntry>& entries, std::size_t prompts,
                                                 const std::function<bool(std::int64_t index)>& wanted);

}  // namespace xdit::cli
