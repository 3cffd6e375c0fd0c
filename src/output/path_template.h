#pragma once
#include <ctime>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "config/run_spec.h"

namespace xdit::output {

/// The path of each picture from an -o template: {seed} {index} {prompt} {date} or printf's %d, %03d for the
/// index;
/// {{ }} %% stand for themselves. Checks, before any work, that
/// - the template is sound and ends in .png, and every picture gets its own path (else kUsage, with what to
/// type);
/// - each path lies under the folder named before the first placeholder, each name fits 255 bytes (prompts
/// are cut to
///   fit), no file is there unless `overwrite`, and the folder can be written to (else kOutput).
[[nodiscard]] std::vector<std::filesystem::path> output_paths(const std::string& path_template,
                                                              std::span<const config::Picture> pictures,
                                                              const std::string& date, bool overwrite);

/// A value made fit for a file name: no separators, control or invisible characters, leading dots or dashes,
/// outer spaces; at most `bytes` of whole UTF-8 characters; never empty.
[[nodiscard]] std::string sanitised(const std::string& value, std::size_t bytes = 255);

/// YYYY-MM-DD in local time: the {date} of a run that began at `time`.
[[nodiscard]] std::string local_date(std::time_t time);

/// Absolute, without . and .. in it: one for all spellings of a file, links aside.
[[nodiscard]] std::filesystem::path whole_path(const std::filesystem::path& path);

/// Error(kOutput) when a file could not be written there, or is there already without `overwrite`.
void check_output(const std::filesystem::path& file, bool overwrite);

}  // namespace xdit::output
