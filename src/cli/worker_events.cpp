#include "cli/worker_events.h"

#include "cli/console.h"
#include "config/values.h"

namespace xdit::cli {

using nlohmann::ordered_json;
namespace {

ordered_json as_json(const Error& why) {
  ordered_json json{{"code", static_cast<int>(why.code())}, {"error", why.message()}};
  if (!why.where().empty()) json["where"] = why.where();
  if (!why.fix().empty()) json["fix"] = why.fix();
  return json;
}

}  // namespace

void WorkerEvents::say(const char* event, const ordered_json& more) const {
  ordered_json line{{"id", id_}, {"event", event}};
  line.update(more);
  print(line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

void WorkerEvents::add(const output::Report& report) {
  wall_s_ += report.wall_s;
  gpu_s_ += output::gpu_seconds(report);
  for (const auto& [phase, seconds] : output::seconds_by_phase(report)) seconds_[phase] += seconds;
}

void WorkerEvents::begin(std::string_view phase, std::int64_t steps) {
  phase_ = phase;
  steps_ = steps;
  progress(0);
}

void WorkerEvents::advance(std::int64_t done) {
  if (done > 0) progress(done);
}

void WorkerEvents::progress(std::int64_t step) const {
  ordered_json more{{"phase", phase_}};
  if (steps_ > 0) more.update({{"step", step}, {"steps", steps_}});
  more.update({{"made", made_.size()}, {"of", pictures_.size()}});
  say("progress", more);
}

void WorkerEvents::picture(std::int64_t index) {
  made_.emplace(index, pictures_.at(index));
}

void WorkerEvents::warn(std::string_view line) {
  say("warning", {{"text", line}});
}

ordered_json WorkerEvents::result() const {
  ordered_json pictures = ordered_json::array();
  for (const auto& [index, picture] : made_) pictures.push_back(picture);
  return {{"pictures", pictures}};
}

void WorkerEvents::done() {
  ordered_json more = result();
  more.update({{"seconds", wall_s_}, {"gpu_seconds", gpu_s_}, {"phases", seconds_}});
  say("done", more);
}

void WorkerEvents::cancelled() {
  say("cancelled", result());
}

void WorkerEvents::failed(const Error& why) {
  ordered_json more = result();
  more.update(as_json(why));
  say("failed", more);
}

void WorkerEvents::refused(const Error& why) {
  say("error", as_json(why));
}

}  // namespace xdit::cli
