#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "comm/job.h"
#include "config/run_spec.h"
#include "core/error.h"
#include "core/stop.h"
#include "models/registry.h"
#include "output/report.h"
#include "parallel/plan.h"

/// The boundary between the launcher and the rank library (which holds LibTorch): no Torch type crosses it.
namespace xdit::pipeline {

/// What a rank tells while it runs. Called from one thread.
class Listener {
 public:
  Listener() = default;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  virtual ~Listener() = default;
  virtual void begin(std::string_view phase,
                     std::int64_t steps) = 0;    ///< "load", "text_encode", "denoise", ...
  virtual void advance(std::int64_t done) = 0;   ///< steps of the phase that are over
  virtual void finish() = 0;                     ///< the phase is over
  virtual void picture(std::int64_t index) = 0;  ///< its file is written
  virtual void warn(std::string_view line) = 0;
  virtual void tick() {}  ///< time has passed, whatever the phase
  virtual void failed(std::int64_t /*picture*/, const Error& why) { throw why; }  ///< the others can be made
};

/// Where ranks meet that another launcher started.
struct Meeting {
  std::string host;
  std::uint16_t port = 0;
  bool served = false;  ///< by that launcher: c10d's TCPStore; else rank 0 serves one
  std::string attempt;  ///< a launcher that starts them again after a failure counts it
};

/// Which of a picture's steps a job makes, and whether another model makes the others.
enum class Stage : std::uint8_t { kWhole, kFirst, kSecond };

struct RankJob {
  const config::RunSpec& spec;
  const models::Model& model;
  const parallel::Plan& plan;
  std::int64_t rank = 0;
  std::string model_hash;                                      ///< 64 hex digits, or "dummy"
  const std::map<std::int64_t, std::filesystem::path>& paths;  ///< by the index of the picture
  const StopToken& stop;
  std::shared_ptr<const comm::Job> peers;  ///< what the ranks share; null when they exchange nothing
  std::optional<Meeting> meeting{};        ///< where they come by it, when it is not here yet
  Stage stage = Stage::kWhole;             ///< a first one is followed by the second of the same pictures
  const models::Model* named = nullptr;    ///< whom pictures are said to be of; null: `model`
  bool last = true;                        ///< no job of this model follows that finds its weights here
  std::map<std::int64_t, std::filesystem::path> previews{};  ///< by index; none unless they are asked for
  double started_s = 0;  ///< steady_clock's seconds at which the run began: time 0 of the report
};

/// A rank, which keeps what it loaded from one job to the next. Used from one thread.
class Rank {
 public:
  Rank() = default;
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;
  virtual ~Rank() = default;

  /// Makes its share of the job's pictures and fills `report`'s phases and ranks. Throws Error; then leave()
  /// comes next. What `job` refers to stays until then.
  virtual void run(const RankJob& job, Listener& listener, output::Report& report) = 0;
  /// Ends what is left of a job that failed and was aborted, here or on another rank, when its peers (null:
  /// none) have left it too.
  virtual void leave(std::span<const std::shared_ptr<const comm::Job>> peers,
                     std::chrono::nanoseconds patience) = 0;
  /// Whether the networks of the last jobs are loaded. Jobs in which the ranks' answers differ are followed
  /// by forget(), as is another model.
  [[nodiscard]] virtual bool holds() const = 0;
  virtual void forget() = 0;
};
using MakeRank = Rank*();  ///< owned by the caller
inline constexpr const char* kMakeRankSymbol = "xdit_make_rank";

}  // namespace xdit::pipeline
