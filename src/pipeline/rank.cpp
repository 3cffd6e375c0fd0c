#include "pipeline/rank.h"

#include <ATen/Context.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <optional>

#include "core/error.h"
#include "output/finish.h"
#include "pipeline/handoff.h"
#include "pipeline/marks.h"
#include "pipeline/meet.h"
#include "pipeline/rank_run.h"
#include "pipeline/resident.h"
#include "pipeline/torch_errors.h"

namespace xdit::pipeline {
namespace {

// What a rank used in both stages of its pictures.
void add_up(std::vector<output::RankUse>& uses) {
  const output::RankUse second = uses.back();
  uses.pop_back();
  output::RankUse& all = uses.back();
  all.held_s = second.held_s;  // since the first began
  all.peak_device_bytes = std::max(all.peak_device_bytes, second.peak_device_bytes);
  all.peak_host_bytes = std::max(all.peak_host_bytes, second.peak_host_bytes);
  all.bytes_read += second.bytes_read;
  all.bytes_sent += second.bytes_sent;
  const auto add = [](double& sum, double more) {
    if (more >= 0) sum = std::max(sum, 0.0) + more;
  };
  add(all.waited_s, second.waited_s);
  add(all.host_bound_s, second.host_bound_s);
}

class LoadingRank final : public Rank {
 public:
  void run(const RankJob& job, Listener& listener, output::Report& report) override {
    in_torch([&] { make_pictures(job, listener, report); });
  }

  void leave(std::span<const std::shared_ptr<const comm::Job>> peers,
             std::chrono::nanoseconds patience) override {
    in_torch([&] {
      if (run_) run_->settle();
      for (const auto& of_stage : peers)
        if (of_stage) of_stage->leave(patience);
      run_.reset();
      if (job_) residents_[&job_->model].release(job_->plan);
      for (auto& [model, resident] : residents_) resident.let_spread_go();  // it may be half way in a step
      job_.reset();
      handoff_ = {};
    });
  }

  [[nodiscard]] bool holds() const override {
    return !residents_.empty() && std::all_of(residents_.begin(), residents_.end(),
                                              [](const auto& resident) { return resident.second.holds(); });
  }
  void forget() override { residents_.clear(); }

 private:
  void make_pictures(const RankJob& asked, Listener& listener, output::Report& report) {
    RankJob& job = job_.emplace(asked);
    const auto rank = static_cast<int>(job.rank);
    const double begun_s = now_s();
    double from_s = begun_s;
    const auto connected = [&](const char* name, double since_s) {
      from_s = now_s();
      report.phases.push_back({name, since_s - job.started_s, from_s - job.started_s, job.rank});
    };
    if (job.meeting) {
      job.peers = meet(*job.meeting, rank, static_cast<int>(job.plan.ranks.size()),
                       std::chrono::milliseconds(std::llround(job.spec.runtime.timeout_s * 1e3)), job.stop);
      connected("connect.meet", from_s);
    }
    try {
      // Makes the GPU's context, without which nothing can be read into its memory.
      if (!job.plan.ranks.at(static_cast<std::size_t>(job.rank)).networks.empty()) use(device_of(job));
      connected("connect.device", from_s);
      run_ = std::make_unique<RankRun>(job, listener, report, residents_[&job.model], handoff_);
      connected("connect.peers", from_s);
      connected("connect", begun_s);
      run_->run();
    } catch (...) {
      // Ranks without a common launcher of ours tell each other of a failure themselves.
      if (job.meeting) job.peers->abort(rank);
      job.stop.check();  // stopped too, but after a peer
      throw;
    }
    run_.reset();
    residents_[&job.model].release(job.plan);
    if (job.stage == Stage::kSecond) add_up(report.ranks);
    if (job.last) residents_.erase(&job.model);
    if (job.stage == Stage::kFirst)
      report.phases.push_back(
          {"hand_over", output::end_of(report, job.rank), now_s() - job.started_s, job.rank});
    job_.reset();
  }

  std::map<const models::Model*, Resident> residents_;
  Handoff handoff_;
  std::optional<RankJob> job_;    // that is not over
  std::unique_ptr<RankRun> run_;  // of it
};

}  // namespace
}  // namespace xdit::pipeline

// What ranks enter the library by; probe.cpp has doctor's entry.
extern "C" __attribute__((visibility("default"))) xdit::pipeline::Rank* xdit_make_rank() {
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setBenchmarkCuDNN(false);
  at::globalContext().setDeterministicCuDNN(true);
  return new xdit::pipeline::LoadingRank;
}
