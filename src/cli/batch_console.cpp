#include "cli/batch_console.h"

#include <fmt/format.h>

#include "cli/console.h"

namespace xdit::cli {

BatchConsole::BatchConsole(const GenerateOptions& options, output::Manifest& manifest,
                           const Pictures& pictures)
    : json_(options.json),
      quiet_(options.quiet),
      manifest_(manifest),
      pictures_(pictures),
      progress_(options.progress, output::stderr_screen()) {}

void BatchConsole::begin(std::string_view phase, std::int64_t steps) {
  std::string label = phase_label(phase);
  if (phase == "denoise") label += fmt::format(", {} of {} pictures done", made_, shown_.expected());
  progress_.begin(std::move(label), steps);
}

void BatchConsole::picture(std::int64_t index) {
  manifest_.done(pictures_.at(index));
  ++made_;
  shown_.settle(index, /*there=*/true);
}

void BatchConsole::failed(std::int64_t index, const Error& why) {
  fault(pictures_.at(index).line, why);
  shown_.settle(index, /*there=*/false);
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
