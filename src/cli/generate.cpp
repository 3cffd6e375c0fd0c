#include <fmt/format.h>

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/generate_options.h"
#include "cli/layers.h"
#include "cli/plan.h"
#include "config/values.h"
#include "core/error.h"
#include "launch/clock.h"
#include "launch/join.h"
#include "launch/kept_ranks.h"
#include "launch/launch.h"
#include "output/path_template.h"

namespace xdit::cli {
namespace {

constexpr double kMostKeptS = 86400;

using Paths = std::vector<std::filesystem::path>;

std::string as_comment(const std::string& text) {
  std::string lines;
  for (const std::string& line : config::split(text, '\n'))
    if (!line.empty()) lines += fmt::format("# {}\n", printable(line));
  return lines;
}

// {"settings": {"sampling.steps": 28, ...}, "pictures": [...]}
std::string as_json(const config::RunSpec& spec, const Paths& paths) {
  nlohmann::ordered_json settings;
  for (const config::Key& key : config::keys()) {
    const std::string value = key.print(spec, key);
    const nlohmann::json parsed = nlohmann::json::parse(value, nullptr, /*allow_exceptions=*/false);
    settings[std::string(key.path)] = parsed.is_discarded() ? nlohmann::json(value) : parsed;
  }
  settings["prompt"] = spec.prompts;
  std::vector<std::string> names;
  for (const std::filesystem::path& path : paths) names.push_back(config::valid_utf8(path.string()));
  return nlohmann::ordered_json{{"settings", settings}, {"pictures", names}}.dump() + "\n";
}

void dry_run(const GenerateOptions& options, const Prepared& run, const Paths& paths) {
  const config::RunSpec& spec = run.resolved.spec;
  print(options.json ? as_json(spec, paths) : config::to_yaml(spec));
  const std::string plan = plan_text(run, launch::this_machine());
  if (options.json) return;
  print(as_comment(plan));
  for (const std::filesystem::path& path : paths) print(as_comment(path.string()));
}

std::optional<double> kept_seconds(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const std::optional<double> seconds = config::parse_duration(text);
  if (!seconds || *seconds > kMostKeptS)
    throw Error(ExitCode::kUsage,
                fmt::format("expected a duration (30s, 10m) up to 24h, found {}", config::in_quotes(text)),
                "--keep", "--keep 10m");
  if (launch::joined_place(&std::getenv))
    throw Error(ExitCode::kUsage, "ranks that another launcher started end with it", "--keep",
                "xdit-gen alone");
  return seconds;
}

ExitCode generate(const Call& call) {
  const double asked_s = launch::now_s();
  const GenerateOptions options = read_generate_options(call.flags, std::cin);
  const double told_s = launch::now_s();  // stdin may have waited for long, which is no part of the run
  const std::optional<double> keep_s = kept_seconds(call.flags.last("--keep"));
  call.stop.check();
  std::random_device entropy;  // 32 bits: short enough to type again
  const Prepared run = prepare(options, call.environment, [&] {
    const std::uint64_t seed = entropy();
    if (launch::joined_place(&std::getenv))
      throw Error(ExitCode::kUsage, "each of the processes that were started would draw its own", "--seed",
                  fmt::format("-s {}", seed));
    return seed;
  });
  const config::RunSpec& spec = run.resolved.spec;
  const Paths paths =
      output::output_paths(spec.output.path, config::pictures(spec), spec.date, spec.output.overwrite);
  Console console(options, spec, run.model.files.name, paths);
  for (const std::string& warning : run.resolved.warnings) console.warn(warning);
  for (const std::uint64_t seed : run.resolved.drawn_seeds) console.note(fmt::format("seed {}", seed));
  if (options.dry_run) {
    dry_run(options, run, paths);
    return ExitCode::kOk;
  }
  launch::KeptRanks ranks(keep_s);
  const launch::Manner manner{.started_s = call.started_s + told_s - asked_s};
  console.summary(launch::run(spec, run.models(), ranks, console, call.stop, manner).report);
  return ExitCode::kOk;
}

}  // namespace

Command generate_command() {
  return {.name = "generate",
          .arguments = "",
          .positionals = 0,
          .meaning = "pictures from prompts",
          .examples = R"(xdit-gen -m models/FLUX.1-dev -p "a lighthouse" -s 1-4 -o "dawn/{seed}.png"
xdit-gen --profile run.yaml --gpus all --report run.json
xdit-gen --from-image out/42.png -m models/FLUX.1-dev -o again.png
)",
          .add_flags =
              [](Parser& parser) {
                add_generate_flags(parser);
                parser.value("--keep", "10m", "leaves ranks and weights for the next generate, so long");
              },
          .run = generate};
}

Command stop_command() {
  const auto stop = [](const Call&) {
    print(launch::end_kept_ranks() ? "ended the ranks that stayed\n" : "no ranks stay\n");
    return ExitCode::kOk;
  };
  return {.name = "stop",
          .arguments = "",
          .positionals = 0,
          .meaning = "ends the ranks that generate --keep left",
          .examples = "xdit-gen stop\n",
          .add_flags = [](Parser&) {},
          .run = stop};
}

}  // namespace xdit::cli
