#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/generate_options.h"
#include "launch/in_order.h"
#include "output/manifest.h"
#include "output/progress.h"
#include "pipeline/rank.h"

namespace xdit::cli {

/// What a batch says: each picture goes into the manifest when its file is there, and onto stdout when those
/// before it are settled, so that the order does not depend on who made them.
class BatchConsole final : public pipeline::Listener {
 public:
  using Pictures = std::map<std::int64_t, output::Manifest::Entry>;  ///< by Picture::index

  BatchConsole(const GenerateOptions& options, output::Manifest& manifest, const Pictures& pictures);

  /// The order that they are shown in.
  void expect(std::vector<std::int64_t> order);
  void end() { shown_.end(); }  ///< the batch failed
  void begin(std::string_view phase, std::int64_t steps) override;
  void advance(std::int64_t done) override { progress_.advance(done); }
  void finish() override { progress_.finish(); }
  void tick() override { progress_.tick(); }
  void picture(std::int64_t index) override;
  void failed(std::int64_t index, const Error& why) override;
  void warn(std::string_view line) override;
  void note(std::string_view line);  ///< unless --quiet
  void fault(const std::string& line, const Error& why);

  [[nodiscard]] bool settled(std::int64_t index) const { return shown_.settled(index); }
  [[nodiscard]] std::size_t made() const { return made_; }
  [[nodiscard]] std::size_t faults() const { return faults_; }

 private:
  void show(std::int64_t index) const;
  void settle(std::int64_t index, bool there);
  void tell_progress();

  bool json_;
  bool quiet_;
  output::Manifest& manifest_;
  const Pictures& pictures_;
  output::Progress progress_;
  launch::InOrder shown_{[this](std::int64_t index) { show(index); }};
  std::size_t made_ = 0;
  bool begun_ = false;  // the first picture
  double work_made_ = 0, work_left_ = 0;
  std::set<std::string> warned_;
  std::size_t faults_ = 0;
};

}  // namespace xdit::cli
