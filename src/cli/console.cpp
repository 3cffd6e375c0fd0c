#include "cli/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "config/values.h"
#include "output/held_back.h"

namespace xdit::cli {

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(STDOUT_FILENO, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0)
      throw Error(ExitCode::kOutput, fmt::format("cannot write: {}", std::strerror(errno)), kStdout);
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

std::string printable(const std::string& text) {
  std::string safe = config::valid_utf8(text);
  for (std::size_t i = 0; i < safe.size(); ++i) {
    const auto byte = static_cast<unsigned char>(safe[i]);
    if ((byte < 0x20 && byte != '\n') || byte == 0x7f) safe[i] = '?';
    // U+0080 to U+009F steer terminals too.
    const bool c1 = byte == 0xC2 && i + 1 < safe.size() && static_cast<unsigned char>(safe[i + 1]) < 0xA0;
    if (c1) safe.replace(i, 2, "?");
  }
  return safe;
}

std::string phase_label(std::string_view phase) {
  std::string label(phase);
  std::replace(label.begin(), label.end(), '_', ' ');
  return label;
}

std::string picture_json(const std::filesystem::path& path, std::int64_t index,
                         const output::PictureRecord& record, const std::string& of) {
  nlohmann::ordered_json line{{"path", config::valid_utf8(path.string())}, {"index", index}};
  if (!of.empty()) line["line"] = config::valid_utf8(of);
  line.update({{"prompt", record.prompt},
               {"seed", record.seed},
               {"width", record.width},
               {"height", record.height},
               {"steps", record.steps},
               {"model", record.model}});
  return line.dump() + "\n";
}

Console::Console(const GenerateOptions& options, const config::RunSpec& spec, std::string model,
                 std::vector<std::filesystem::path> paths)
    : json_(options.json),
      quiet_(options.quiet),
      verbose_(options.verbose),
      spec_(spec),
      model_(std::move(model)),
      pictures_(config::pictures(spec)),
      paths_(std::move(paths)),
      progress_(options.progress, output::stderr_screen()) {}

void Console::begin(std::string_view phase, std::int64_t steps) {
  std::string label = phase_label(phase);
  if (phase == "denoise" && pictures_.size() > 1)
    label += fmt::format(" {}/{}", ++denoised_, pictures_.size());
  progress_.begin(std::move(label), steps);
}

void Console::picture(std::int64_t index) {
  const auto at = static_cast<std::size_t>(index);
  if (!json_) return print(paths_.at(at).string() + "\n");
  print(picture_json(paths_.at(at), index, output::record_of(spec_, pictures_.at(at), model_, {})));
}

void Console::warn(std::string_view line) {
  note(fmt::format("warning: {}", line));
}

void Console::note(std::string_view line) {
  if (!quiet_) progress_.note(fmt::format("xdit-gen: {}", printable(std::string(line))));
}

void Console::summary(const output::Report& report) {
  std::string line = fmt::format("{} picture{} in {:.2f} s", pictures_.size(),
                                 pictures_.size() == 1 ? "" : "s", report.wall_s);
  const char* separator = ": ";
  for (const auto& [phase, seconds] : output::seconds_in_order(report))
    line += fmt::format("{}{} {:.2f}", std::exchange(separator, ", "), phase, seconds);
  note(line);
  if (!verbose_) return;
  if (const auto findings = output::held_back(report); !findings.empty())
    note("held back by " + output::to_text(findings));
  for (const output::RankUse& use : report.ranks)
    note(fmt::format("rank {} on {}: peak {:.2f} GB on the device, {:.2f} GB on the host, {:.2f} GB read",
                     use.rank, use.device, static_cast<double>(use.peak_device_bytes) / 1e9,
                     static_cast<double>(use.peak_host_bytes) / 1e9,
                     static_cast<double>(use.bytes_read) / 1e9));
}

}  // namespace xdit::cli
