#include "cli/batch_console.h"

#include <fmt/format.h>

#include "cli/console.h"
#include "config/samplers.h"

namespace xdit::cli {
namespace {

// What the time that a picture takes goes with.
double work_of(const output::PictureRecord& record) {
  const config::Sampler* sampler = config::sampler_named(record.scheduler);
  return static_cast<double>(record.width * record.height * sampler->evaluations(record.steps)) *
         (record.cfg_scale > 1 ? 2 : 1);
}

}  // namespace

BatchConsole::BatchConsole(const GenerateOptions& options, output::Manifest& manifest,
                           const Pictures& pictures)
    : json_(options.json),
      quiet_(options.quiet),
      manifest_(manifest),
      pictures_(pictures),
      progress_(options.progress, output::stderr_screen()) {}

void BatchConsole::begin(std::string_view phase, std::int64_t steps) {
  if (phase == "denoise" && !std::exchange(begun_, true)) tell_progress();
  progress_.begin(phase_label(phase), steps);
}

void BatchConsole::expect(std::vector<std::int64_t> order) {
  for (const std::int64_t index : order) work_left_ += work_of(pictures_.at(index).record);
  shown_.expect(std::move(order));
}

void BatchConsole::settle(std::int64_t index, bool there) {
  const double work = work_of(pictures_.at(index).record);
  work_left_ -= work;
  if (there) work_made_ += work;
  if (begun_) tell_progress();
  shown_.settle(index, there);
}

void BatchConsole::tell_progress() {
  progress_.whole(fmt::format("{} of {} pictures", made_, shown_.expected()),
                  work_left_ == 0 ? 1 : work_made_ / (work_made_ + work_left_));
}

void BatchConsole::picture(std::int64_t index) {
  manifest_.done(pictures_.at(index));
  ++made_;
  settle(index, /*there=*/true);
}

void BatchConsole::failed(std::int64_t index, const Error& why) {
  fault(pictures_.at(index).line, why);
  settle(index, /*there=*/false);
}

void BatchConsole::fault(const std::string& line, const Error& why) {
  ++faults_;
  std::string text = why.what();
  if (why.where() != line) text = fmt::format("{}: {}", line, text);
  manifest_.failed(line, text);
  progress_.note(fmt::format("xdit-gen: error: {}", printable(text)));
}

void BatchConsole::show(std::int64_t index) const {
  const output::Manifest::Entry& entry = pictures_.at(index);
  print(json_ ? picture_json(entry.path, index, entry.record, entry.line) : entry.path.string() + "\n");
}

void BatchConsole::warn(std::string_view line) {
  if (warned_.emplace(line).second) note(fmt::format("warning: {}", line));
}

void BatchConsole::note(std::string_view line) {
  if (!quiet_) progress_.note(fmt::format("xdit-gen: {}", printable(std::string(line))));
}

}  // namespace xdit::cli
