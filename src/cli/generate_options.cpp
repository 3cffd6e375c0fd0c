#include "cli/generate_options.h"

#include <fmt/format.h>

#include <istream>
#include <map>

#include "cli/parser.h"
#include "config/values.h"

namespace xdit::cli {
namespace {

using config::Key;
using config::Setting;

constexpr std::size_t kMaxPromptBytes = std::size_t{1} << 20U;

// Keys whose flag stands alone: --overwrite, --no-metadata, --shard-weights.
bool is_toggle(const Key& key) {
  return key.type == config::kBoolean || key.allowed == "auto|true|false";
}

Setting setting(std::string_view key, std::vector<std::string> values, std::string_view flag) {
  return {.key = std::string(key),
          .values = std::move(values),
          .where = std::string(flag),
          .code = ExitCode::kUsage};
}

void add_size(const std::string& size, config::Layer& layer) {
  if (size.empty()) return;
  const std::size_t x = size.find_first_of("xX");
  if (x == std::string::npos)
    throw Error(ExitCode::kUsage, fmt::format("expected WIDTHxHEIGHT, found {}", config::in_quotes(size)),
                "--size", "--size 1024x1024");
  layer.push_back(setting("image.width", {size.substr(0, x)}, "--size"));
  layer.push_back(setting("image.height", {size.substr(x + 1)}, "--size"));
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

GenerateOptions read_generate_options(const Arguments& arguments, std::istream& input) {
  Parser parser;
  std::map<const Key*, const CLI::Option*> flags;
  for (const Key& key : config::keys()) {
    if (key.flag.empty()) continue;
    const std::string names = fmt::format("{} {}", key.flag, key.aliases);
    flags[&key] = is_toggle(key) ? parser.toggle(names) : parser.value(names);
  }
  const CLI::Option* profile = parser.value("--profile");
  const CLI::Option* set = parser.value("--set");
  const CLI::Option* size = parser.value("--size");
  const CLI::Option* from_image = parser.value("--from-image");
  const CLI::Option* progress = parser.value("--progress");
  const CLI::Option* json = parser.toggle("--json");
  const CLI::Option* quiet = parser.toggle("--quiet");
  const CLI::Option* verbose = parser.toggle("--verbose -v");
  const CLI::Option* dry_run = parser.toggle("--dry-run");
  parser.parse(arguments, 0);

  GenerateOptions options{.settings = {},
                          .profile = last(profile),
                          .from_image = last(from_image),
                          .json = last(json) == "true",
                          .quiet = last(quiet) == "true",
                          .verbose = last(verbose) == "true",
                          .dry_run = last(dry_run) == "true",
                          .help = parser.help()};
  if (options.help) return options;
  const std::string mode = progress->empty() ? "auto" : last(progress);
  if (mode != "auto" && mode != "plain" && mode != "off")
    throw Error(ExitCode::kUsage,
                fmt::format("expected one of auto|plain|off, found {}", config::in_quotes(mode)),
                "--progress", "--progress plain");
  options.progress = mode == "plain" ? output::ProgressMode::kPlain : output::ProgressMode::kAuto;
  if (mode == "off" || options.quiet) options.progress = output::ProgressMode::kOff;

  for (const std::string& assignment : set->results())
    options.settings.push_back(config::parse_assignment(assignment));
  add_size(last(size), options.settings);
  for (const Key& key : config::keys()) {
    const auto flag = flags.find(&key);
    if (flag == flags.end() || flag->second->empty()) continue;
    std::vector<std::string> values = flag->second->results();
    if (!key.list) values = {values.back()};
    if (key.path == "prompt") {
      if (std::count(values.begin(), values.end(), "-") > 1)
        throw Error(ExitCode::kUsage, "stdin can be read once", "--prompt -");
      for (std::string& value : values)
        if (value == "-") value = read_prompt(input);
    }
    options.settings.push_back(setting(key.path, std::move(values), key.flag));
  }
  return options;
}

}  // namespace xdit::cli
