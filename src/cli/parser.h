#pragma once
#include <CLI/CLI.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace xdit::cli {

using Arguments = std::vector<std::string>;

/// A CLI::App of one command: -h/--help, nothing read from files, long flags also with '_' for '-'.
class Parser {
 public:
  /// A flag as helps, completions and the man page tell it.
  struct Flag {
    Arguments names;      ///< "--steps", then its aliases
    std::string value;    ///< what stands for its value: "N", "PATH", or the choices "a|b"; "" for a switch
    std::string meaning;  ///< one line
  };

  Parser();

  /// `names` as "--steps -s"; each takes one value and may be repeated.
  void value(const std::string& names, const std::string& stands_for, const std::string& meaning);
  /// A switch, also as --no-NAME and --NAME=false.
  void toggle(const std::string& names, const std::string& meaning);
  [[nodiscard]] std::vector<Flag> flags() const;  ///< in the order in which they were added

  /// Parses at most `positionals` arguments that are no flags and returns them. Error(kUsage) names the
  /// nearest flag.
  Arguments parse(const Arguments& arguments, std::size_t positionals);

  /// What was typed for the flag `name` ("--steps"): every value; the last one or ""; whether a switch is on.
  [[nodiscard]] const Arguments& values(const std::string& name) const;
  [[nodiscard]] std::string last(const std::string& name) const;
  [[nodiscard]] bool on(const std::string& name) const { return last(name) == "true"; }

 private:
  CLI::App app_;
};

/// The place of `value` in `known` ("md|json"). Error(kUsage) names all and says how it stands behind `where`
/// ("--format", "xdit-gen list").
[[nodiscard]] std::size_t choice(const std::string& value, std::string_view known, const std::string& where);

}  // namespace xdit::cli
