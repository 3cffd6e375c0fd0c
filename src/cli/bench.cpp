#include <fmt/format.h>
#include <poll.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <random>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/generate_options.h"
#include "cli/layers.h"
#include "cli/number.h"
#include "config/values.h"
#include "core/temporary_folder.h"
#include "launch/clock.h"
#include "launch/launch.h"
#include "launch/nvml.h"
#include "output/benchmark.h"
#include "output/path_template.h"

namespace xdit::cli {
namespace {

constexpr const char* kBenchFormats = "md|json";
constexpr std::int64_t kMostRuns = 10000;
constexpr double kMostS = 86400;
constexpr int kPauseMs = 100;  // how soon a signal ends the pause

/// How often, and how long.
struct Schedule {
  std::int64_t warmup = 1;   ///< runs, the cold one among them
  std::int64_t repeats = 5;  ///< at least
  double sustained_s = 0;    ///< at least
  double rest_s = 2;         ///< before the run from rest
};

std::int64_t runs_of(const Parser& flags, const char* flag, std::int64_t usual) {
  const std::string text = flags.last(flag);
  if (text.empty()) return usual;
  const std::optional<std::int64_t> value = number<std::int64_t>(text);
  if (!value || *value < 1 || *value > kMostRuns)
    throw Error(ExitCode::kUsage,
                fmt::format("expected a number 1..{}, found {}", kMostRuns, config::in_quotes(text)), flag,
                fmt::format("{} {}", flag, usual));
  return *value;
}

// Seconds, also with a unit.
double seconds_of(const Parser& flags, const char* flag, double usual) {
  const std::string text = flags.last(flag);
  if (text.empty()) return usual;
  std::optional<double> seconds = config::parse_duration(text);
  if (!seconds) seconds = config::parse_duration(text + "s");
  if (!seconds || *seconds > kMostS)
    throw Error(ExitCode::kUsage,
                fmt::format("expected seconds up to a day, found {}", config::in_quotes(text)), flag,
                fmt::format("{} 30", flag));
  return *seconds;
}

Schedule schedule_of(const Parser& flags) {
  const Schedule schedule{.warmup = runs_of(flags, "--warmup", 1),
                          .repeats = runs_of(flags, "--repeat", 5),
                          .sustained_s = seconds_of(flags, "--sustained", 0),
                          .rest_s = seconds_of(flags, "--rest", 2)};
  if (!flags.last("--sustained").empty() && schedule.sustained_s < output::kSustainedS)
    throw Error(ExitCode::kUsage,
                fmt::format("less than {} s of runs are not sustained", output::kSustainedS), "--sustained",
                fmt::format("--sustained {}", output::kSustainedS));
  return schedule;
}

// As a shell would read it again.
std::string command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(file), {}};
  std::string line;
  for (std::size_t at = 0; at < all.size(); at = all.find('\0', at) + 1) {
    std::string word = all.c_str() + at;
    if (line.empty()) word = std::filesystem::path(word).filename();
    const bool plain = word.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:{}%+@") ==
                       std::string::npos;
    std::string quoted = plain && !word.empty() ? word : "'";
    if (quoted == "'") {
      for (const char c : word) quoted += c == '\'' ? "'\\''" : std::string(1, c);
      quoted += "'";
    }
    line += (line.empty() ? "" : " ") + quoted;
  }
  return line;
}

class Bench {
 public:
  Bench(const Call& call, const GenerateOptions& options, const Prepared& run)
      : call_(call), options_(options), run_(run), spec_(run.resolved.spec) {
    spec_.output.report.clear();
    spec_.output.trace.clear();
    paths_ =
        output::output_paths(spec_.output.path, config::pictures(spec_), spec_.date, spec_.output.overwrite);
  }

  [[nodiscard]] output::Benchmark measure(const Schedule& schedule) {
    output::Benchmark bench;
    bench.command = command_line();
    bench.driver = launch::Nvml().driver();
    for (std::int64_t i = 1; i <= schedule.warmup; ++i) {
      const std::optional<double> cold = i == 1 ? std::optional(call_.started_s) : std::nullopt;
      output::Report report = time(fmt::format("warm-up {} of {}", i, schedule.warmup), cold);
      if (cold) bench.about = std::move(report);
    }
    pause(schedule.rest_s);
    bench.rest = output::timed_of(time("from rest"));
    const double begun_s = launch::now_s();
    while (std::ssize(bench.repeats) < schedule.repeats || bench.repeated_s < schedule.sustained_s) {
      bench.repeats.push_back(output::timed_of(time(fmt::format("repeat {}", bench.repeats.size() + 1))));
      bench.repeated_s = launch::now_s() - begun_s;
    }
    return bench;
  }

 private:
  output::Report time(const std::string& what, std::optional<double> started_s = {}) {
    call_.stop.check();
    ConsoleWithoutPaths console(options_, spec_, run_.model.files.name, paths_);
    output::Report report = launch::run(spec_, run_.models(), ranks_, console, call_.stop,
                                        {.last = false, .watched = true, .started_s = started_s})
                                .report;
    spec_.output.overwrite = true;  // its own pictures
    console.note(fmt::format("{}: {:.3f} s", what, report.wall_s));
    return report;
  }

  void pause(double seconds) const {
    const double until_s = launch::now_s() + seconds;
    while (launch::now_s() < until_s) {
      call_.stop.check();
      ::poll(nullptr, 0, kPauseMs);
    }
  }

  const Call& call_;
  const GenerateOptions& options_;
  const Prepared& run_;
  config::RunSpec spec_;
  std::vector<std::filesystem::path> paths_;
  launch::Ranks ranks_;
};

ExitCode bench(const Call& call) {
  refuse_what_is_of_one_run(call.flags, "a bench", /*takes_stdin=*/false);
  GenerateOptions options = read_generate_options(call.flags, std::cin);
  const std::string format = format_of(call.flags, kBenchFormats, options);
  const Schedule schedule = schedule_of(call.flags);
  call.stop.check();  // stdin may have waited for long
  std::optional<TemporaryFolder> folder;
  if (config::winner({&options.settings, 1}, "output.path") == nullptr)
    options.settings.push_back({.key = "output.path",
                                .values = {(folder.emplace().path() / "{index}.png").string()},
                                .where = {},
                                .code = ExitCode::kOutput});
  std::random_device entropy;
  const Prepared run = prepare(options, call.environment, [&] { return std::uint64_t{entropy()}; });
  Console console(options, run.resolved.spec, run.model.files.name, {});
  for (const std::string& warning : run.resolved.warnings) console.warn(warning);
  for (const std::uint64_t seed : run.resolved.drawn_seeds) console.note(fmt::format("seed {}", seed));
  output::Benchmark measured = Bench(call, options, run).measure(schedule);
  measured.elapsed_s = launch::now_s() - call.started_s;
  print(format == "json" ? output::to_json(measured) : printable(output::to_markdown(measured)));
  return ExitCode::kOk;
}

}  // namespace

Command bench_command() {
  const auto add_flags = [](Parser& parser) {
    parser.value("--repeat", "N", "timed runs (5)");
    parser.value("--warmup", "N", "runs before them (1)");
    parser.value("--sustained", "SECONDS", "repeats until they have lasted so long (5 or more)");
    parser.value("--rest", "SECONDS", "pause before a run from rest (2)");
    parser.value("--format", kBenchFormats, "of the figures on stdout");
    add_generate_flags(parser);
  };
  return {.name = "bench",
          .arguments = "",
          .positionals = 0,
          .meaning = "times a run of generate again and again on ranks that stay: cold, from rest, sustained",
          .examples = R"(xdit-gen bench -m models/FLUX.1-dev -p "a fox" -s 1 --sustained 30
xdit-gen bench --profile run.yaml --gpus all --format json
)",
          .add_flags = add_flags,
          .run = bench};
}

}  // namespace xdit::cli
