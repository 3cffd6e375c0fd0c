#pragma once
#include <CLI/CLI.hpp>
#include <string>

#include "cli/commands.h"

namespace xdit::cli {

/// A CLI::App of one command: -h/--help, nothing read from files, long flags also with '_' for '-'.
class Parser {
 public:
  Parser();

  /// `names` as "--steps -s"; each takes one value and may be repeated: results() has every value as it was
  /// typed.
  CLI::Option* value(const std::string& names);
  /// A switch, also as --no-NAME and --NAME=false; results() has "true" or "false" for each.
  CLI::Option* toggle(const std::string& names);

  /// Parses at most `positionals` arguments that are no flags and returns them. Error(kUsage) names the
  /// nearest flag.
  Arguments parse(const Arguments& arguments, std::size_t positionals);
  [[nodiscard]] bool help() const { return help_->count() > 0; }

 private:
  CLI::App app_;
  CLI::Option* help_;
};

/// The last value typed, or "".
[[nodiscard]] std::string last(const CLI::Option* option);

}  // namespace xdit::cli
