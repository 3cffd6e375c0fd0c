#pragma once
#include <iosfwd>
#include <string>

#include "cli/commands.h"
#include "config/settings.h"
#include "output/progress.h"

namespace xdit::cli {

/// What the command line of `generate` says.
struct GenerateOptions {
  config::Layer settings;  ///< of flags; --set stands before flags, so that flags win
  std::string profile;     ///< file, or ""
  std::string from_image;  ///< file, or ""
  output::ProgressMode progress = output::ProgressMode::kAuto;
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  bool dry_run = false;
  bool help = false;
};

/// Error(kUsage) says what to type. A prompt of "-" is read from `input`, at most 1 MiB, without its last
/// newlines.
[[nodiscard]] GenerateOptions read_generate_options(const Arguments& arguments, std::istream& input);

/// `xdit-gen --help`: a screen with examples. `xdit-gen generate --help`: every flag.
[[nodiscard]] std::string short_help();
[[nodiscard]] std::string generate_help();

}  // namespace xdit::cli
