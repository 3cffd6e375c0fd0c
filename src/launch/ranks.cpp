#include "launch/ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "launch/rank_process.h"

namespace xdit::launch {
namespace {

// What processes cannot change.
std::string seats_of(const Task& task, const parallel::Plan& plan) {
  std::string text =
      fmt::format("{} {}", static_cast<int>(task.spec.runtime.device), task.spec.runtime.timeout_s);
  for (const parallel::RankPlan& rank : plan.ranks) text += fmt::format(" {}", rank.device);
  for (const parallel::Gpu& gpu : task.machine.gpus) text += " " + gpu.uuid;
  return text;
}

}  // namespace

const Aside Ranks::kNone{};

void Ranks::start(const Task& task, const models::Model& model, const parallel::Plan& plan) {
  supervisor_.reset();
  const auto ranks = static_cast<std::int64_t>(plan.ranks.size());
  const double timeout_s = task.spec.runtime.timeout_s;
  peers_ = plan.exchanges() ? comm::Job::create(static_cast<int>(ranks)) : nullptr;
  supervisor_.emplace(timeout_s, stay_);
  for (std::int64_t rank = 0; rank < ranks; ++rank)
    supervisor_->start([&](Channel channel, pid_t launcher) {
      if (ranks > 1) {  // LibTorch would give each rank every core; a number that the user set stays
        const std::int64_t cores = std::max<std::int64_t>(1, task.machine.cores / ranks);
        ::setenv("OMP_NUM_THREADS", std::to_string(cores).c_str(), 0);
      }
      rank_main({.rank = rank,
                 .model = model,
                 .weights = task.weights,
                 .peers = peers_,
                 .beat_s = std::min(1.0, timeout_s / 4)},
                std::move(channel), launcher);
    });
}

void Ranks::make(const Task& task, const models::Model& model, const parallel::Plan& plan,
                 pipeline::Listener& listener, const StopToken& stop, output::Report& report) {
  nlohmann::json message{{"task", json_of(task)}};
  std::string seats = seats_of(task, plan);
  if (!supervisor_ || seats != seats_ || !supervisor_->ready()) {
    start(task, model, plan);
    seats_ = std::move(seats);
  } else {
    if (peers_) peers_->renew();
    if (!supervisor_->hold()) message["forget"] = true;
  }
  supervisor_->send(message);
  supervisor_->wait(listener, stop, report, aside_);
  if (task.last) supervisor_.reset();
}

}  // namespace xdit::launch
