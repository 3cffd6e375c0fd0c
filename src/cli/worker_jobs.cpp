#include "cli/worker_jobs.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "config/batch_file.h"
#include "core/json.h"

namespace xdit::cli {
namespace {

constexpr std::size_t kMaxLine = std::size_t{2} << 20U;
constexpr std::size_t kMaxWaiting = 10'000;

// A text of the job that is no setting of its pictures.
std::string taken_text(Json& object, const char* name, const std::string& where) {
  const auto found = object.find(name);
  if (found == object.end()) return {};
  const Json value = *found;
  object.erase(name);
  if (!value.is_string())
    throw Error(ExitCode::kUsage, fmt::format("{}: expected text, found {}", name, value.type_name()), where);
  return value.get<std::string>();
}

void fill(WorkerJob& job, Json object, const std::string& where) {
  job.profile = taken_text(object, "profile", where);
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty())
      job.settings.push_back({.key = key, .values = {value}, .where = where, .code = ExitCode::kUsage});
  };
  add("model.path", taken_text(object, "model", where));
  add("output.path", taken_text(object, "output", where));
  const config::BatchLine line = config::read_batch_line(object, where);
  if (line.fault) throw *line.fault;
  job.settings.insert(job.settings.end(), line.settings.begin(), line.settings.end());
}

Json taken_id(Json& object, const char* name, const std::string& where) {
  Json id = object.at(name);
  object.erase(name);
  if (!id.is_string() && !id.is_number_integer())
    throw Error(ExitCode::kUsage,
                fmt::format("{}: expected text or an integer, found {}", name, id.type_name()), where);
  return id;
}

}  // namespace

void WorkerJobs::add_line(std::string_view text, const Cancel& cancel, const Refuse& refuse) {
  ++lines_;
  const bool too_long = std::exchange(too_long_, false);
  if (!too_long && text.find_first_not_of(" \t\r") == std::string_view::npos) return;
  const std::string where = fmt::format("stdin:{}", lines_);
  WorkerJob job;
  try {
    if (too_long) throw Error(ExitCode::kUsage, "the line is longer than 2 MiB", where);
    Json object = parse_json(text, where, ExitCode::kUsage);
    if (!object.is_object())
      throw Error(ExitCode::kUsage, fmt::format("expected an object, found {}", object.type_name()), where,
                  R"({"id": "a", "prompt": "a fox", "output": "a.png"})");
    if (object.contains("cancel")) return cancel(taken_id(object, "cancel", where), where);
    job.id = object.contains("id") ? taken_id(object, "id", where) : Json(lines_);
    if (waiting_.size() >= kMaxWaiting)
      return refuse(job.id, Error(ExitCode::kUsage, "too many jobs wait", where,
                                  fmt::format("at most {} at a time", kMaxWaiting)));
    fill(job, std::move(object), where);
  } catch (const Error& error) {
    if (waiting_.size() >= kMaxWaiting) return refuse(job.id, error);
    job.fault = error;
  }
  waiting_.push_back(std::move(job));
}

void WorkerJobs::read(const Cancel& cancel, const Refuse& refuse) {
  pollfd readable{descriptor(), POLLIN, 0};
  if (readable.fd < 0 || ::poll(&readable, 1, 0) <= 0) return;
  std::array<char, std::size_t{1} << 16U> bytes{};
  const ssize_t count = ::read(descriptor_, bytes.data(), bytes.size());
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count < 0) throw Error(ExitCode::kUsage, fmt::format("cannot read: {}", std::strerror(errno)), "stdin");
  closed_ = count == 0;
  partial_.append(bytes.data(), static_cast<std::size_t>(count));
  if (closed_ && (too_long_ || !partial_.empty())) partial_ += '\n';
  std::size_t begin = 0;
  for (std::size_t end = partial_.find('\n'); end != std::string::npos; end = partial_.find('\n', begin)) {
    add_line(std::string_view(partial_).substr(begin, end - begin), cancel, refuse);
    begin = end + 1;
  }
  partial_.erase(0, begin);
  too_long_ = too_long_ || partial_.size() > kMaxLine;
  if (too_long_) partial_.clear();
}

std::optional<WorkerJob> WorkerJobs::next() {
  if (waiting_.empty()) return std::nullopt;
  WorkerJob job = std::move(waiting_.front());
  waiting_.pop_front();
  return job;
}

bool WorkerJobs::remove(const Json& id) {
  const auto found =
      std::find_if(waiting_.begin(), waiting_.end(), [&](const WorkerJob& job) { return job.id == id; });
  if (found == waiting_.end()) return false;
  waiting_.erase(found);
  return true;
}

}  // namespace xdit::cli
