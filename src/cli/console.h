#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "cli/generate_options.h"
#include "config/run_spec.h"
#include "output/metadata.h"
#include "output/progress.h"
#include "output/report.h"
#include "pipeline/rank.h"

namespace xdit::cli {

inline constexpr const char* kStdout = "stdout";  ///< where an Error lies
/// Writes to stdout at once. Error(kOutput) when nobody can read it.
void print(std::string_view text);

/// Untrusted text for a terminal: valid UTF-8, control characters but newlines become '?'.
[[nodiscard]] std::string printable(const std::string& text);

/// A phase as people read it.
[[nodiscard]] std::string phase_label(std::string_view phase);

/// A picture as --json shows it, a line with its end; `of` is its line of a batch's file.
[[nodiscard]] std::string picture_json(const std::filesystem::path& path, std::int64_t index,
                                       const output::PictureRecord& record, const std::string& of = {});

/// What a run says: each picture's path (or JSON) on stdout when its file is there, all else on stderr.
class Console : public pipeline::Listener {
 public:
  Console(const GenerateOptions& options, const config::RunSpec& spec, std::string model,
          std::vector<std::filesystem::path> paths);

  void begin(std::string_view phase, std::int64_t steps) override;
  void advance(std::int64_t done) override { progress_.advance(done); }
  void finish() override { progress_.finish(); }
  void tick() override { progress_.tick(); }
  void picture(std::int64_t index) override;
  void warn(std::string_view line) override;

  void note(std::string_view line);            ///< unless --quiet
  void summary(const output::Report& report);  ///< seconds of the run and its phases; memory with -v

 private:
  bool json_;
  bool quiet_;
  bool verbose_;
  const config::RunSpec& spec_;
  std::string model_;
  std::vector<config::Picture> pictures_;
  std::vector<std::filesystem::path> paths_;
  output::Progress progress_;
  std::size_t denoised_ = 0;
};

/// That of a run among several, where stdout is their table's.
class ConsoleWithoutPaths final : public Console {
 public:
  using Console::Console;
  void picture(std::int64_t /*index*/) override {}
};

}  // namespace xdit::cli
