#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "output/report.h"
#include "pipeline/rank.h"

namespace xdit::cli {

/// What a worker says of one job on stdout: JSON objects, one a line.
class WorkerEvents final : public pipeline::Listener {
 public:
  using Pictures = std::map<std::int64_t, nlohmann::ordered_json>;  ///< by index

  explicit WorkerEvents(nlohmann::json id) : id_(std::move(id)) {}

  void expect(Pictures pictures) { pictures_ = std::move(pictures); }
  void add(const output::Report& report);  ///< of a part of the job

  void begin(std::string_view phase, std::int64_t steps) override;
  void advance(std::int64_t done) override;
  void finish() override {}
  void picture(std::int64_t index) override;
  void warn(std::string_view line) override;

  void done();
  void cancelled();
  void failed(const Error& why);
  void refused(const Error& why);  ///< a line about a job: its own end is another event
  void failed(std::int64_t /*picture*/, const Error& why) override { failure_ = why; }
  [[nodiscard]] const std::optional<Error>& failure() const { return failure_; }  ///< of a picture

 private:
  void progress(std::int64_t step) const;
  void say(const char* event, const nlohmann::ordered_json& more) const;
  [[nodiscard]] nlohmann::ordered_json result() const;

  nlohmann::json id_;
  Pictures pictures_;
  Pictures made_;
  std::map<std::string, double> seconds_;  // by phase
  double wall_s_ = 0;
  double gpu_s_ = 0;
  std::optional<Error> failure_;
  std::string phase_;
  std::int64_t steps_ = 0;
};

}  // namespace xdit::cli
