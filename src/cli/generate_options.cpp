#include "cli/generate_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <istream>

#include "config/values.h"
#include "launch/join.h"

namespace xdit::cli {
namespace {

using config::Key;
using config::Setting;

constexpr const char* kProgressModes = "auto|plain|off";  // in the order of ProgressMode
constexpr std::size_t kMaxPromptBytes = std::size_t{1} << 20U;

// Keys whose flag stands alone: --overwrite, --no-metadata, --shard-weights.
bool is_toggle(const Key& key) {
  return key.type == config::kBoolean || key.allowed == "auto|true|false";
}

// What stands for a value in the help.
std::string stands_for(const Key& key) {
  if (key.type == config::kChoice) return std::string(key.allowed);
  if (key.type == config::kText) return key.path == "negative_prompt" ? "TEXT" : "PATH";
  return key.type == config::kTexts ? "TEXT" : "N";
}

Setting setting(std::string_view key, std::vector<std::string> values, std::string_view flag) {
  return {.key = std::string(key),
          .values = std::move(values),
          .where = std::string(flag),
          .code = ExitCode::kUsage};
}

std::string read_prompt(std::istream& input) {
  std::string text(kMaxPromptBytes + 1, '\0');
  input.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(input.gcount()));
  if (text.size() > kMaxPromptBytes)
    throw Error(ExitCode::kUsage, "the prompt on stdin is longer than 1 MiB", "--prompt -");
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  return text;
}

}  // namespace

void add_generate_flags(Parser& parser) {
  for (const Key& key : config::keys()) {
    if (key.flag.empty()) continue;
    const std::string names = fmt::format("{} {}", key.flag, key.aliases);
    std::string meaning(key.meaning);
    if (key.type == config::kInteger || key.type == config::kNumber)
      meaning += fmt::format(" ({})", key.allowed);
    if (is_toggle(key))
      parser.toggle(names, meaning);
    else
      parser.value(names, stands_for(key), meaning);
  }
  parser.value("--size", "WxH", "width and height");
  parser.value("--profile", "FILE", "settings as YAML");
  parser.value("--set", "KEY=VALUE", "any key of a profile");
  parser.value("--from-image", "PNG", "the settings that made a picture");
  parser.toggle("--dry-run", "prints all settings as a profile, and the plan");
  parser.toggle("--json", "one JSON object a picture on stdout");
  parser.toggle("--quiet", "nothing but errors");
  parser.toggle("--verbose -v", "more");
  parser.value("--progress", kProgressModes, "bar on a terminal, lines elsewhere");
}

GenerateOptions read_generate_options(const Parser& flags, std::istream& input) {
  GenerateOptions options{.settings = {},
                          .fallback = {},
                          .profile = flags.last("--profile"),
                          .from_image = flags.last("--from-image"),
                          .json = flags.on("--json"),
                          .quiet = flags.on("--quiet"),
                          .verbose = flags.on("--verbose"),
                          .dry_run = flags.on("--dry-run")};
  if (!flags.values("--progress").empty())
    options.progress =
        static_cast<output::ProgressMode>(choice(flags.last("--progress"), kProgressModes, "--progress"));
  if (options.quiet) options.progress = output::ProgressMode::kOff;

  for (const std::string& assignment : flags.values("--set"))
    options.settings.push_back(config::parse_assignment(assignment));
  if (const std::string size = flags.last("--size"); !size.empty())
    for (config::Setting& pixels : config::parse_size(size, "--size", "--size 1024x1024"))
      options.settings.push_back(std::move(pixels));
  for (const Key& key : config::keys()) {
    if (key.flag.empty()) continue;
    std::vector<std::string> values = flags.values(std::string(key.flag));
    if (values.empty()) continue;
    if (!key.list) values = {values.back()};
    if (key.path == "prompt") {
      if (std::count(values.begin(), values.end(), "-") > 1)
        throw Error(ExitCode::kUsage, "stdin can be read once", "--prompt -");
      for (std::string& value : values) {
        if (value != "-") continue;
        value = read_prompt(input);
        options.empty_stdin = value.empty();
      }
    }
    options.settings.push_back(setting(key.path, std::move(values), key.flag));
  }
  return options;
}

std::string format_of(const Parser& flags, const std::string& known, const GenerateOptions& options) {
  std::string format = flags.last("--format");
  if (format.empty()) return options.json ? "json" : "md";
  static_cast<void>(choice(format, known, "--format"));
  return format;
}

void refuse_what_is_of_one_run(const Parser& flags, const std::string& who, bool takes_stdin) {
  const auto refuse = [&](const char* what, const char* where, const char* fix) {
    throw Error(ExitCode::kUsage, fmt::format("{} {}", who, what), where, fix);
  };
  if (launch::joined_place(&std::getenv))
    refuse("starts its own ranks", "RANK", "xdit-gen without torchrun, srun or mpirun");
  if (flags.on("--dry-run")) refuse("has no dry run", "--dry-run", "xdit-gen generate --dry-run");
  for (const char* flag : {"--report", "--trace"})
    if (!flags.last(flag).empty()) refuse("does not write it", flag, "xdit-gen generate");
  const std::vector<std::string>& prompts = flags.values("--prompt");
  if (takes_stdin && std::find(prompts.begin(), prompts.end(), "-") != prompts.end())
    refuse("takes no prompt from stdin", "--prompt -", "-p \"a fox\"");
}

}  // namespace xdit::cli
