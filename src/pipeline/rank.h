#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
  std::string model_hash;                           ///< 64 hex digits, or "dummy"
  const std::vector<std::filesystem::path>& paths;  ///< by the index of the picture
  const StopToken& stop;
  std::shared_ptr<const comm::Job> peers;  ///< what the ranks share; null when they exchange nothing
  std::optional<Meeting> meeting{};        ///< where they come by it, when it is not here yet
  Stage stage = Stage::kWhole;             ///< a first one is followed by the second of the same pictures
  const models::Model* named = nullptr;    ///< whom pictures are said to be of; null: `model`
  bool last = true;                        ///< no job of this model follows that finds its weights here
  double started_s = 0;  ///< steady_clock's seconds at which the run began: time 0 of the report
};

/// Makes the rank's share of the pictures of each job, in turn: what they have in common is loaded once.
/// Fills `report`'s phases and ranks. Throws Error.
using RunRank = void(const std::vector<RankJob>& jobs, Listener& listener, output::Report& report);
inline constexpr const char* kRunRankSymbol = "xdit_run_rank";

}  // namespace xdit::pipeline
