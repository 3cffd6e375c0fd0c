#pragma once
#include <iosfwd>
#include <string>

#include "cli/parser.h"
#include "config/settings.h"
#include "output/progress.h"

namespace xdit::cli {

/// What the command line of `generate` says.
struct GenerateOptions {
  config::Layer settings;  ///< of flags; --set stands before flags, so that flags win
  config::Layer fallback;  ///< below all else
  config::Layer job{};     ///< of a worker's job or a sweep's point, above all else
  std::string profile;     ///< file, or ""
  std::string from_image;  ///< file, or ""
  output::ProgressMode progress = output::ProgressMode::kAuto;
  bool empty_stdin = false;  ///< that a prompt was to come from, or a signal came first
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  bool dry_run = false;
};

void add_generate_flags(Parser& parser);

/// Error(kUsage) says what to type. A prompt of "-" is read from `input`, at most 1 MiB, without its last
/// newlines.
[[nodiscard]] GenerateOptions read_generate_options(const Parser& flags, std::istream& input);

/// What --format asks for among `known` ("md|json"); without it json with --json, else md.
[[nodiscard]] std::string format_of(const Parser& flags, const std::string& known,
                                    const GenerateOptions& options);

/// What a command of many runs has no place for: another launcher's ranks, --dry-run, --report, --trace, and
/// where it `takes_stdin` a prompt there. `who`: "a batch".
void refuse_what_is_of_one_run(const Parser& flags, const std::string& who, bool takes_stdin);

}  // namespace xdit::cli
