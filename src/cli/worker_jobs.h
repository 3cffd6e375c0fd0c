#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/generate_options.h"
#include "config/settings.h"
#include "core/error.h"
#include "core/json.h"

namespace xdit::cli {

/// A line of a worker's stdin: a job, or what is wrong with it.
struct WorkerJob {
  Json id;  ///< text or number; its line's number when it has none, null when the line is no job
  std::string profile{};
  config::Layer settings{};
  std::optional<Error> fault{};
};

/// Jobs on a descriptor, one JSON object a line, in their order.
class WorkerJobs {
 public:
  explicit WorkerJobs(int descriptor) : descriptor_(descriptor) {}

  using Cancel = std::function<void(const Json& id, const std::string& where)>;
  using Refuse = std::function<void(const Json& id, const Error& why)>;

  /// To be polled for more; -1 when nothing more comes.
  [[nodiscard]] int descriptor() const { return closed_ ? -1 : descriptor_; }
  /// Takes what is there, without waiting. Calls `cancel` with the id of each {"cancel": id} and its line,
  /// `refuse` for jobs when 10,000 wait.
  void read(const Cancel& cancel, const Refuse& refuse);
  [[nodiscard]] std::optional<WorkerJob> next();
  /// Takes a waiting job away; false when there is none of that id.
  bool remove(const Json& id);
  [[nodiscard]] bool ended() const { return closed_ && waiting_.empty(); }

 private:
  void add_line(std::string_view text, const Cancel& cancel, const Refuse& refuse);

  int descriptor_;
  bool closed_ = false;
  bool too_long_ = false;  // so was the begin of the line that comes
  std::int64_t lines_ = 0;
  std::string partial_;
  std::deque<WorkerJob> waiting_;
};

}  // namespace xdit::cli
