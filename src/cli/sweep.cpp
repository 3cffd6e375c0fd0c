#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/sweep_points.h"
#include "cli/sweep_table.h"
#include "config/values.h"
#include "core/file.h"
#include "core/json.h"
#include "core/lock.h"
#include "launch/join.h"
#include "launch/launch.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormats = "md|csv|json|jsonl";

/// What all of a sweep share.
struct Sweep {
  const GenerateOptions& options;
  const std::vector<config::Axis>& axes;
  SweepPlace place;
  std::vector<SweepPoint> points{};
  std::set<fs::path> previews{};  ///< that points wrote

  void say(const std::string& line) const {
    if (!options.quiet) fmt::print(stderr, "xdit-gen: {}\n", printable(line));
  }
  static void fault(const std::string& line) { fmt::print(stderr, "xdit-gen: error: {}\n", printable(line)); }
};

std::string text_in(const std::string& format, const output::Table& table) {
  if (format == "csv") return output::to_csv(table);
  if (format == "json") return output::to_json(table);
  return format == "jsonl" ? output::to_jsonl(table) : output::to_markdown(table);
}

void refuse_what_has_no_place(const Call& call, const GenerateOptions& options) {
  if (call.rest.empty())
    throw Error(ExitCode::kUsage, "no profile to sweep", {},
                "xdit-gen sweep run.yaml, with a sweep: section");
  if (!options.profile.empty())
    throw Error(ExitCode::kUsage, "a sweep takes its profile as an argument", "--profile",
                "xdit-gen sweep " + options.profile);
  if (launch::joined_place(&std::getenv))
    throw Error(ExitCode::kUsage, "a sweep starts its own ranks", "RANK", "xdit-gen sweep alone");
}

// The swept lists win over flags and the environment.
void warn_of_what_is_swept(const Sweep& sweep, const char* const* environment) {
  const bool one_scale = std::ranges::any_of(
      sweep.points, [](const SweepPoint& point) { return point.run && point.run->model.guidance_is_cfg; });
  const auto known = [&](const std::string& key) {
    return one_scale && key == "sampling.guidance" ? "sampling.cfg_scale" : key;
  };
  for (const config::Layer& layer : {config::read_environment(environment), sweep.options.settings})
    for (const config::Setting& setting : layer)
      for (const config::Axis& axis : sweep.axes)
        if (known(axis.key) == known(setting.key))
          sweep.say(fmt::format("warning: {} has no effect: the profile sweeps {}", setting.where, axis.key));
}

// One sweep at a time writes there.
File locked(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(ExitCode::kOutput, error.message(), folder.string(), "another -o");
  File file = File::open_read(folder, ExitCode::kOutput);
  lock_alone(file, folder, "another sweep writes there", "another -o, or --resume when it has ended");
  return file;
}

// What a sweep that goes on must repeat; none for one that begins.
std::optional<std::uint64_t> begun_seed(const fs::path& path, bool resume, bool overwrite) {
  std::error_code ignored;
  const bool there = fs::exists(fs::symlink_status(path, ignored));
  if (there && resume) {
    const Json begun = read_json(path, ExitCode::kOutput);
    if (begun.is_object() && begun.contains("seed") && begun["seed"].is_number_unsigned())
      return begun["seed"].get<std::uint64_t>();
    throw Error(ExitCode::kOutput, "not a sweep of xdit-gen", path.string(), "another -o");
  }
  if (there && !overwrite)
    throw Error(ExitCode::kOutput, "a sweep was begun there", path.string(),
                "--resume goes on with it, --overwrite begins again");
  return std::nullopt;
}

void begin(const fs::path& path, std::uint64_t seed, bool overwrite) {
  const nlohmann::ordered_json begun{{"version", XDIT_VERSION}, {"seed", seed}};
  write_file_atomically(path, begun.dump() + "\n", overwrite);
}

void say_once_what_points_share(const Sweep& sweep) {
  std::set<std::string> said;
  for (const SweepPoint& point : sweep.points) {
    if (!point.run) continue;
    for (const std::string& warning : point.run->resolved.warnings)
      if (said.insert(warning).second) sweep.say("warning: " + warning);
    for (const std::uint64_t seed : point.run->resolved.drawn_seeds)
      if (said.insert(fmt::format("{}", seed)).second) sweep.say(fmt::format("seed {}", seed));
  }
}

std::string heading(const Sweep& sweep, const SweepPoint& point) {
  return fmt::format("point {} of {}: {}", &point - sweep.points.data() + 1, sweep.points.size(),
                     point.label);
}

ExitCode dry_run(const Sweep& sweep) {
  ExitCode code = ExitCode::kOk;
  const parallel::Machine machine = launch::this_machine();
  for (const SweepPoint& point : sweep.points) {
    std::string text = fmt::format("{} -> {}\n", heading(sweep, point), point.folder.string());
    std::string about;
    if (point.fault) {
      about = fmt::format("cannot run: {}", point.fault->what());
      code = ExitCode::kPartial;
    } else {
      about = parallel::to_text(point.plan, point.run->model, machine, point.run->resolved.spec);
    }
    for (const std::string& line : config::split(about, '\n'))
      if (!line.empty()) text += fmt::format("  {}\n", line);
    print(printable(text));
  }
  return code;
}

void write_tables(const Sweep& sweep) {
  const output::Table table = table_of(sweep.axes, sweep.points);
  for (const std::string& format : config::split(kFormats, '|'))
    write_file_atomically(sweep.place.folder / ("table." + format), text_in(format, table),
                          /*overwrite=*/true);
  write_file_atomically(sweep.place.folder / "sweep.svg", output::to_svg(plot_of(sweep.axes, sweep.points)),
                        /*overwrite=*/true);
}

// The report is written last: where it stands, the point is complete.
void make(Sweep& sweep, SweepPoint& point, const StopToken& stop) {
  const config::RunSpec& spec = point.run->resolved.spec;
  std::error_code ignored;
  fs::remove(point.report(), ignored);
  write_file_atomically(point.profile(), config::to_yaml(spec), spec.output.overwrite);
  ConsoleWithoutPaths console(sweep.options, spec, point.run->model.files.name, point.pictures);
  launch::Ranks ranks;
  const launch::Manner manner{.previews = &sweep.previews};
  console.summary(launch::run(spec, point.run->models(), ranks, console, stop, manner).report);
}

// Runs what is not complete yet. False when pictures differ that must not.
bool make_all(Sweep& sweep, bool resume, const StopToken& stop) {
  bool as_promised = true;
  for (SweepPoint& point : sweep.points) {
    stop.check();
    try {
      if (!point.fault) {
        const bool complete = resume && is_complete(point);
        sweep.say(heading(sweep, point) + (complete ? ": complete" : ""));
        if (!complete) make(sweep, point, stop);
        point.measured = output::read_measured(point.report(), ExitCode::kOutput);
      }
    } catch (const Error& error) {
      if (!ends_point_only(error.code())) throw;
      point.fault = error;
    }
    const auto done = static_cast<std::size_t>(&point - sweep.points.data());
    if (point.fault) Sweep::fault(fmt::format("{}: {}", heading(sweep, point), point.fault->what()));
    if (point.measured && !check_equality(point, std::span(sweep.points).first(done))) {
      as_promised = false;
      Sweep::fault(
          fmt::format("{}: pictures are not those of the first point of its settings, though both "
                      "are exact: {}\n  try: xdit-gen verify on their folders, and report it",
                      heading(sweep, point), point.equality));
    }
    write_tables(sweep);
  }
  return as_promised;
}

void refuse_other_runs(const Sweep& sweep, bool overwrite) {
  std::error_code ignored;
  for (const SweepPoint& point : sweep.points)
    if (!point.fault && !overwrite && fs::exists(point.profile(), ignored) && !holds_same_run(point))
      throw Error(ExitCode::kOutput, "a run with other settings is there", point.profile().string(),
                  "--overwrite, or another -o");
}

ExitCode sweep(const Call& call) {
  GenerateOptions options = read_generate_options(call.flags, std::cin);
  refuse_what_has_no_place(call, options);
  const std::string format = format_of(call.flags, kFormats, options);
  const config::SweepProfile profile = config::read_sweep_profile(call.rest.front());
  call.stop.check();  // stdin may have waited for long
  options.fallback = profile.base;
  const std::vector<config::Layer> layers{profile.base, config::read_environment(call.environment),
                                          options.settings};
  const config::Setting* output = config::winner(layers, "output.path");
  const config::Setting* replaces = config::winner(layers, "output.overwrite");
  const bool overwrite = replaces != nullptr && replaces->values.back() == "true";
  const bool resume = call.flags.on("--resume");

  Sweep all{.options = options,
            .axes = profile.axes,
            .place = sweep_place(output == nullptr ? "out/sweep" : output->values.back())};
  std::optional<File> lock;
  if (!options.dry_run) lock = locked(all.place.folder);
  const fs::path begun = all.place.folder / "sweep.json";
  const std::optional<std::uint64_t> goes_on = begun_seed(begun, resume, overwrite || options.dry_run);
  const std::uint64_t seed = goes_on ? *goes_on : std::random_device()();
  all.points = settle_points(all.axes, options, call.environment, all.place, seed,
                             overwrite || resume || options.dry_run);
  const auto failed = [](const SweepPoint& point) { return point.fault.has_value(); };
  if (std::all_of(all.points.begin(), all.points.end(), failed)) throw Error(*all.points.front().fault);
  warn_of_what_is_swept(all, call.environment);
  say_once_what_points_share(all);
  if (options.dry_run) return dry_run(all);
  if (resume) refuse_other_runs(all, overwrite);
  if (!goes_on) begin(begun, seed, overwrite);
  const bool as_promised = make_all(all, resume, call.stop);
  print(text_in(format, table_of(all.axes, all.points)));

  const auto faults = std::count_if(all.points.begin(), all.points.end(), failed);
  const auto compared = std::count_if(all.points.begin(), all.points.end(), [](const SweepPoint& point) {
    return point.exact() && point.equality == "equal";
  });
  if (compared > 0 && as_promised)
    all.say(fmt::format("pictures of exact points are equal, byte for byte ({} compared)", compared));
  if (faults > 0) all.say(fmt::format("{} of {} points failed", faults, all.points.size()));
  return faults == 0 && as_promised ? ExitCode::kOk : ExitCode::kPartial;
}

}  // namespace

Command sweep_command() {
  const auto add_flags = [](Parser& parser) {
    parser.value("--format", kFormats, "of the table on stdout");
    parser.toggle("--resume", "goes on with a sweep that was cut short");
    add_generate_flags(parser);
  };
  return {.name = "sweep",
          .arguments = "PROFILE",
          .positionals = 1,
          .meaning =
              "a run for each point of the profile's sweep: lists, each from a cold start, and their "
              "table",
          .examples = R"(xdit-gen sweep run.yaml -o out/sweep --format csv
xdit-gen sweep run.yaml -o out/sweep --resume
xdit-gen sweep run.yaml --dry-run
)",
          .add_flags = add_flags,
          .run = sweep};
}

}  // namespace xdit::cli
