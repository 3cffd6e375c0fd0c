#include "launch/ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "launch/rank_process.h"
#include "output/finish.h"

namespace xdit::launch {
namespace {

// Knows which pictures are there.
class Noting final : public pipeline::Listener {
 public:
  explicit Noting(pipeline::Listener& to) : to_(to) {}
  void begin(std::string_view phase, std::int64_t steps) override { to_.begin(phase, steps); }
  void advance(std::int64_t done) override { to_.advance(done); }
  void finish() override { to_.finish(); }
  void picture(std::int64_t index) override {
    made_.insert(index);
    to_.picture(index);
  }
  void warn(std::string_view line) override { to_.warn(line); }
  void tick() override { to_.tick(); }
  void failed(std::int64_t index, const Error& why) override {
    made_.insert(index);
    to_.failed(index, why);
  }
  [[nodiscard]] std::vector<config::Picture> others(std::vector<config::Picture> all) const {
    std::erase_if(all, [&](const config::Picture& picture) { return made_.contains(picture.index); });
    return all;
  }

 private:
  pipeline::Listener& to_;
  std::set<std::int64_t> made_;
};

// Before LibTorch is loaded. What the user set stays.
void share_cores(std::int64_t cores, std::int64_t ranks) {
  if (ranks > 1)  // LibTorch would give each rank every core
    ::setenv("OMP_NUM_THREADS", std::to_string(std::max<std::int64_t>(1, cores / ranks)).c_str(), 0);
  // Where others use the cores, threads that spin until the next task keep those that have one from them: 40
  // times slower. libgomp itself takes this number where it knows of more threads than cores.
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) ::setenv("GOMP_SPINCOUNT", "1000", 0);
}

}  // namespace

std::string seats_of(const Task& task, const parallel::Plan& plan) {
  std::string text =
      fmt::format("{} {}", static_cast<int>(task.spec.runtime.device), task.spec.runtime.timeout_s);
  for (const parallel::RankPlan& rank : plan.ranks) text += fmt::format(" {}", rank.device);
  for (const parallel::Gpu& gpu : task.machine.gpus) text += " " + gpu.uuid;
  return text;
}

const Aside Ranks::kNone{};

void Ranks::start(const Task& task, const Models& models, const parallel::Plan& plan) {
  supervisor_.reset();
  const auto ranks = static_cast<std::int64_t>(plan.ranks.size());
  const double timeout_s = task.spec.runtime.timeout_s;
  for (auto& peers : peers_) peers = plan.exchanges() ? comm::Job::create(static_cast<int>(ranks)) : nullptr;
  supervisor_.emplace(timeout_s, stay_);
  for (std::int64_t rank = 0; rank < ranks; ++rank)
    supervisor_->start([&](Channel channel, pid_t launcher) {
      share_cores(task.machine.cores, ranks);
      rank_main({.rank = rank,
                 .models = models,
                 .weights = task.weights,
                 .peers = {peers_[0], peers_[1]},
                 .beat_s = std::min(1.0, timeout_s / 4)},
                std::move(channel), launcher);
    });
}

void Ranks::make(const Task& task, const Models& models, const parallel::Plan& plan,
                 pipeline::Listener& listener, const StopToken& stop, output::Report& report) {
  Noting noting(listener);
  const output::Report before = report;
  try {
    return work(task, models, plan, noting, stop, report);
  } catch (const Error& error) {
    if (!stay_ || error.code() != ExitCode::kRank || stop.signal() != 0) throw;
    listener.warn(error.message() + "; ranks are started again");
  }
  Task rest = task;
  rest.spec.listed = noting.others(config::pictures(task.spec));
  rest.spec.output.overwrite = true;  // one may have been written and not told
  if (rest.spec.listed.empty()) return;
  report = before;
  work(rest, models, parallel::make_plan(rest.spec, models.model, rest.machine), listener, stop, report);
}

void Ranks::work(const Task& task, const Models& models, const parallel::Plan& plan,
                 pipeline::Listener& listener, const StopToken& stop, output::Report& report) {
  nlohmann::json message{{"task", json_of(task)}};
  std::string seats = seats_of(task, plan);
  if (!supervisor_ || seats != seats_ || !supervisor_->ready()) {
    start(task, models, plan);
    seats_ = std::move(seats);
  } else {
    for (const auto& peers : peers_)
      if (peers && peers->aborted()) peers->renew();
    if (!supervisor_->hold()) message["forget"] = true;
  }
  supervisor_->send(message);
  const std::vector<double> over_s = supervisor_->wait(listener, stop, report, aside_);
  for (std::size_t rank = 0; rank < over_s.size(); ++rank)
    output::add_finish(report, static_cast<std::int64_t>(rank), over_s[rank] - task.started_s, task.last);
  if (task.last) supervisor_.reset();
}

}  // namespace xdit::launch
