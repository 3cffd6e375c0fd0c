#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <thread>

#include "cli/batch_console.h"
#include "cli/batch_jobs.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/generate_options.h"
#include "cli/layers.h"
#include "config/values.h"
#include "core/file.h"
#include "launch/launch.h"
#include "output/path_template.h"
#include "weights/model_files.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;
using Pictures = BatchConsole::Pictures;

constexpr const char* kBatchFormats = "text|jsonl|csv|yaml";  // in the order of BatchFormat
constexpr std::size_t kMaxFile = std::size_t{256} << 20U;
constexpr std::size_t kPromptsAtOnce = 256;  // embeddings of FLUX.1: 1 GB, twice that with negative ones
constexpr double kMaxPauseS = 60;

[[noreturn]] void misuse(const std::string& what, const std::string& flag, const std::string& fix = {}) {
  throw Error(ExitCode::kUsage, what, flag, fix);
}

std::int64_t retries(const Parser& flags) {
  const std::string text = flags.last("--retry").empty() ? "0" : flags.last("--retry");
  if (text.size() > 4 || text.find_first_not_of("0123456789") != std::string::npos)
    misuse(fmt::format("expected a number, found {}", config::in_quotes(text)), "--retry", "--retry 3");
  return std::stoll(text);
}

std::vector<config::BatchLine> read_lines(const Call& call) {
  if (call.rest.empty()) misuse("no file of prompts", {}, "xdit-gen batch prompts.jsonl, or - for stdin");
  const std::string& file = call.rest.front();
  const std::string name = file == "-" ? "stdin" : file;
  std::error_code ignored;
  const fs::file_status status = fs::status(file, ignored);
  std::string text;
  if (file == "-" || fs::is_fifo(status) || fs::is_character_file(status)) {  // also <(...) of a shell
    std::ifstream named;
    if (file != "-") named.open(file, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(file == "-" ? std::cin : named), {});
    if (text.size() > kMaxFile) misuse("more than 256 MiB", name, "a smaller file");
  } else {
    text = read_file(file, ExitCode::kUsage, kMaxFile);
  }
  const std::string format = call.flags.last("--format");
  if (format.empty()) return config::read_batch(text, name, config::batch_format(name, text));
  return config::read_batch(text, name,
                            static_cast<config::BatchFormat>(choice(format, kBatchFormats, "--format")));
}

// Next to the pictures, whatever they are called.
fs::path manifest_path(const std::string& given, const std::string& path_template) {
  if (!given.empty()) return given;
  const std::string fixed = path_template.substr(0, path_template.find_first_of("{%"));
  return fs::path(fixed.substr(0, fixed.rfind('/') + 1)) / "batch.jsonl";
}

void refuse_own_lines(const fs::path& manifest, const std::string& file) {
  std::error_code ignored;
  if (fs::equivalent(manifest, file == "-" ? "/dev/stdin" : file, ignored))
    misuse("the manifest would be written over the prompts", manifest.string(),
           "--manifest done.jsonl, or another -o");
}

/// A batch whose lines are settled.
struct Batch {
  std::vector<BatchEntry> entries;
  Pictures pictures;
  std::vector<fs::path> paths;  ///< by index
  std::vector<output::Manifest::Place> places;
  std::string model_hash;
};

Batch settled(const Prepared& run, const std::vector<config::BatchLine>& lines,
              const output::Manifest& manifest) {
  const config::RunSpec::Output& output = run.resolved.spec.output;
  const output::Manifest::Begin& begin = manifest.begin();
  Batch batch{.entries = {},
              .pictures = {},
              .paths = {},
              .places = {},
              .model_hash = run.model.dummy ? "dummy" : weights::model_hash(run.model.files)};
  batch.entries = settle(lines, run, manifest, batch.places);
  std::vector<config::Picture> all;
  for (BatchEntry& entry : batch.entries) {
    entry.spec.date = begin.date;
    all.insert(all.end(), entry.pictures.begin(), entry.pictures.end());
  }
  // What stands there already is looked at later: a batch that goes on has made some of it.
  const std::vector<fs::path> paths = output::output_paths(output.path, all, begin.date, /*overwrite=*/true);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto index = static_cast<std::size_t>(all[i].index);
    batch.paths.resize(std::max(batch.paths.size(), index + 1));
    batch.paths[index] = paths[i];
  }
  for (const BatchEntry& entry : batch.entries)
    for (const config::Picture& picture : entry.pictures)
      batch.pictures.emplace(
          picture.index,
          output::Manifest::Entry{
              .line = entry.line,
              .path = batch.paths.at(static_cast<std::size_t>(picture.index)),
              .record = output::record_of(entry.spec, picture, run.model.files.name, batch.model_hash),
              .grid = {},
              .index = picture.index});
  return batch;
}

bool holds(const fs::path& path, const output::PictureRecord& record) {
  try {
    return output::same_settings(output::read_record(path), record);
  } catch (const Error&) {
    return false;
  }
}

// Pictures that are not there yet. One that was written when the batch was killed, before it was recorded, is
// recorded now: it says itself what made it, or the manifest says that it was begun.
std::set<std::int64_t> missing(const Batch& batch, const config::RunSpec::Output& output,
                               output::Manifest& manifest) {
  std::set<std::int64_t> all;
  for (const auto& [index, entry] : batch.pictures) {
    std::error_code ignored;
    const bool there = fs::exists(fs::symlink_status(entry.path, ignored));
    if (there && manifest.resumed()) {
      if (manifest.has(entry.path, entry.record)) continue;
      if (holds(entry.path, entry.record) || manifest.begun(entry.path, entry.record)) {
        manifest.done(entry);
        continue;
      }
    }
    const bool unsigned_picture =
        manifest.resumed() && !output.metadata;  // may be of a batch that was killed
    if (there && !output.overwrite && !unsigned_picture) {
      if (manifest.recorded(entry.path))
        throw Error(ExitCode::kOutput,
                    fmt::format("{} asks for another picture than was made there", entry.line),
                    entry.path.string(), "--resume --overwrite makes it anew; another -o keeps both");
      throw Error(ExitCode::kOutput, "the file exists", entry.path.string(),
                  "--overwrite, or another -o, e.g. -o 'out/{index}.png'");
    }
    all.insert(index);
  }
  return all;
}

// Pictures of one batch may share a preview, which replaces nothing else.
void check_previews(const Batch& batch, const Prepared& run, const std::string& date, bool overwrite) {
  config::RunSpec spec = run.resolved.spec;
  spec.date = date;
  std::map<std::int64_t, fs::path> paths;
  for (const BatchEntry& entry : batch.entries)
    for (const config::Picture& picture : entry.pictures) {
      spec.listed.push_back(picture);
      paths.emplace(picture.index, batch.paths.at(static_cast<std::size_t>(picture.index)));
    }
  if (paths.empty()) return;
  std::set<fs::path> previews;
  for (const auto& [index, preview] : launch::preview_paths(spec, run.model, paths)) previews.insert(preview);
  for (const fs::path& preview : previews) output::check_output(preview, overwrite);
}

std::string text_of(const parallel::Mesh& mesh) {
  std::string text;
  for (const auto& [name, degree] : mesh.degrees())
    if (degree > 1) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, degree);
  return text.empty() ? "1" : text;
}

// Jobs for all that is not settled; lines that no plan fits are faults.
std::vector<launch::PlannedJob> plan(Batch& batch, const std::set<std::int64_t>& wanted, const Prepared& run,
                                     const launch::Survivors& gpus, const parallel::Machine& machine,
                                     BatchConsole& console) {
  std::vector<launch::PlannedJob> all;
  const auto open = [&](std::int64_t index) { return wanted.contains(index) && !console.settled(index); };
  for (config::RunSpec& spec : group(batch.entries, kPromptsAtOnce, open)) {
    spec.output.overwrite = true;  // `missing` has looked
    try {
      const config::RunSpec placed = gpus.take(spec, run.models(), machine);
      for (launch::PlannedJob& job : launch::plan_jobs(placed, run.models(), machine)) {
        for (const std::string& note : job.plan.notes) console.warn(note);
        for (const config::Picture& picture : job.spec.listed)
          batch.pictures.at(picture.index).grid = text_of(job.plan.mesh);
        all.push_back(std::move(job));
      }
    } catch (const Error& error) {
      if (error.code() != ExitCode::kUsage && error.code() != ExitCode::kMemory) throw;
      for (const config::Picture& picture : spec.listed) console.failed(picture.index, error);
    }
  }
  return all;
}

// Of the rank itself, or of its GPU.
bool is_a_ranks_own(const Error& error) {
  const ExitCode code = error.code();
  return code == ExitCode::kRank || code == ExitCode::kDevice || code == ExitCode::kInternal;
}

bool may_pass(const Error& error) {
  const ExitCode code = error.code();
  return is_a_ranks_own(error) || code == ExitCode::kMemory ||
         (code == ExitCode::kOutput && error.where() != kStdout);
}

void pause(double seconds, const StopToken& stop) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < until) {
    stop.check();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

// Of stdout, whatever is planned and however often.
std::vector<std::int64_t> order_of(const Batch& batch, const std::set<std::int64_t>& wanted) {
  std::vector<std::int64_t> order;
  for (const config::RunSpec& spec :
       group(batch.entries, kPromptsAtOnce, [&](std::int64_t index) { return wanted.contains(index); }))
    for (const config::Picture& picture : spec.listed) order.push_back(picture.index);
  return order;
}

// As often as `retry` allows without a picture in between.
void make_all(Batch& batch, const std::set<std::int64_t>& wanted, const Prepared& run, std::int64_t retry,
              BatchConsole& console, const StopToken& stop) {
  std::int64_t failures = 0;
  parallel::Machine machine = launch::this_machine();
  launch::Survivors gpus(run.resolved.spec, machine);
  console.expect(order_of(batch, wanted));
  for (double pause_s = 1;; pause_s = std::min(2 * pause_s, kMaxPauseS)) {
    const std::size_t before = console.made();
    std::optional<launch::Culprit> culprit;
    for (const std::string& line : gpus.lost(machine)) console.warn(line);
    try {
      launch::run_jobs(plan(batch, wanted, run, gpus, machine, console), run.models(), batch.model_hash,
                       batch.paths, machine, console, stop, &culprit);
      return;
    } catch (const Error& error) {
      if (console.made() > before) {
        failures = 0;
        pause_s = 1;
      }
      if (culprit && is_a_ranks_own(error))
        if (const std::string line = gpus.failed(*culprit); !line.empty()) console.warn(line);
      if (!may_pass(error) || failures++ >= retry) throw;
      console.warn(fmt::format("{}; again in {} s", error.message(), pause_s));
    }
    pause(pause_s, stop);
    machine = launch::this_machine();  // a lost GPU is not there any more
  }
}

std::string counted(std::size_t count, const char* of) {
  return fmt::format("{} {}{}", count, of, count == 1 ? "" : "s");
}

ExitCode batch(const Call& call) {
  const auto begun = std::chrono::steady_clock::now();
  refuse_what_is_of_one_run(call.flags, "a batch", /*takes_stdin=*/true);
  GenerateOptions options = read_generate_options(call.flags, std::cin);
  const std::int64_t retry = retries(call.flags);
  const std::vector<config::BatchLine> lines = read_lines(call);
  call.stop.check();  // stdin may have waited for long
  const auto fallback = [](const char* key, const char* value) {
    return config::Setting{.key = key, .values = {value}, .where = {}, .code = ExitCode::kUsage};
  };
  options.fallback = {fallback("prompt", ""), fallback("output.path", "out/{index}.png")};
  const Prepared run = prepare(options, call.environment, [] { return std::uint64_t{0}; });
  for (const std::string& warning : run.resolved.warnings)
    if (!options.quiet) fmt::print(stderr, "xdit-gen: warning: {}\n", warning);

  if (lines.empty()) {  // nor is a batch begun
    if (!options.quiet) fmt::print(stderr, "xdit-gen: warning: no prompts in {}\n", call.rest.front());
    return ExitCode::kOk;
  }

  const config::RunSpec::Output& output = run.resolved.spec.output;
  const fs::path done = manifest_path(call.flags.last("--manifest"), output.path);
  refuse_own_lines(done, call.rest.front());
  std::random_device entropy;
  output::Manifest manifest(done, {.seed = entropy(), .date = output::local_date(std::time(nullptr))},
                            call.flags.on("--resume"), output.overwrite);
  Batch all = settled(run, lines, manifest);
  const std::set<std::int64_t> wanted = missing(all, output, manifest);
  check_previews(all, run, manifest.begin().date, output.overwrite || manifest.resumed());
  manifest.start();
  manifest.place(all.places);
  if (!output.metadata) {
    std::vector<output::Manifest::Entry> entries;
    entries.reserve(wanted.size());
    for (const std::int64_t index : wanted) entries.push_back(all.pictures.at(index));
    manifest.begin(entries);
  }
  BatchConsole console(options, manifest, all.pictures);
  for (const BatchEntry& entry : all.entries)
    if (entry.fault) console.fault(entry.line, *entry.fault);
  if (const std::size_t gone = all.places.size() - all.entries.size(); gone > 0)
    console.note(fmt::format("{} of an earlier {} {} not there any more: what was made of {} stays",
                             counted(gone, "line"), call.rest.front(), gone == 1 ? "is" : "are",
                             gone == 1 ? "it" : "them"));
  if (manifest.resumed())
    console.note(fmt::format("{} of {} pictures left", wanted.size(), all.pictures.size()));
  try {
    make_all(all, wanted, run, retry, console, call.stop);
  } catch (const Error&) {
    console.end();
    throw;
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begun;
  console.note(fmt::format("{} made{} in {:.2f} s", counted(console.made(), "picture"),
                           console.faults() > 0 ? ", " + counted(console.faults(), "fault") : "",
                           seconds.count()));
  return console.faults() == 0 ? ExitCode::kOk : ExitCode::kPartial;
}

}  // namespace

Command batch_command() {
  const auto add_flags = [](Parser& parser) {
    parser.value("--format", kBatchFormats, "of the file; else by its name");
    parser.toggle("--resume", "goes on with a batch that was cut short");
    parser.value("--retry", "N", "times that ranks are started again after a failure");
    parser.value("--manifest", "PATH", "what was done, as JSONL; else batch.jsonl beside the pictures");
    add_generate_flags(parser);
  };
  return {.name = "batch",
          .arguments = "FILE",
          .positionals = 1,
          .meaning = "pictures from a file of prompts, with one load of the model",
          .examples = R"(xdit-gen batch prompts.jsonl -m models/FLUX.1-dev -o "out/{index}.png"
xdit-gen batch prompts.jsonl -m models/FLUX.1-dev -o "out/{index}.png" --resume
printf '%s\n' "a fox" "an owl" | xdit-gen batch - -m models/FLUX.1-dev --json
)",
          .add_flags = add_flags,
          .run = batch};
}

}  // namespace xdit::cli
