#include "pipeline/rank.h"

#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <new>
#include <optional>

#include "core/error.h"
#include "pipeline/marks.h"
#include "pipeline/meet.h"
#include "pipeline/rank_run.h"
#include "pipeline/resident.h"

namespace xdit::pipeline {
namespace {

// LibTorch's errors as ours.
void in_torch(const std::function<void()>& work) {
  const char* memory_fix = "--dtype bf16, or a smaller --size";
  try {
    const c10::InferenceMode no_gradients;
    work();
  } catch (const c10::OutOfMemoryError& error) {
    throw Error(ExitCode::kMemory, error.what_without_backtrace(), {}, memory_fix);
  } catch (const c10::Error& error) {
    throw Error(ExitCode::kInternal, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    throw Error(ExitCode::kMemory, "no host memory left", {}, memory_fix);
  }
}

class LoadingRank final : public Rank {
 public:
  void run(const RankJob& job, Listener& listener, output::Report& report) override {
    in_torch([&] { make_pictures(job, listener, report); });
  }

  void leave(const comm::Job* peers, std::chrono::nanoseconds patience) override {
    in_torch([&] {
      if (run_) run_->settle();
      if (peers != nullptr) peers->leave(patience);
      if (job_) resident_.release(job_->plan);
      run_.reset();
      job_.reset();
    });
  }

  [[nodiscard]] bool holds() const override { return resident_.holds(); }
  void forget() override { resident_ = {}; }

 private:
  void make_pictures(const RankJob& asked, Listener& listener, output::Report& report) {
    RankJob& job = job_.emplace(asked);
    const auto rank = static_cast<int>(job.rank);
    const double begun_s = now_s();
    if (job.meeting)
      job.peers = meet(*job.meeting, rank, static_cast<int>(job.plan.ranks.size()),
                       std::chrono::milliseconds(std::llround(job.spec.runtime.timeout_s * 1e3)), job.stop);
    try {
      run_ = std::make_unique<RankRun>(job, listener, report, resident_);
      report.phases.push_back(
          {"connect", begun_s - job.started_s, now_s() - job.started_s, job.rank, -1, -1});
      run_->run();
    } catch (...) {
      // Ranks without a common launcher of ours tell each other of a failure themselves.
      if (job.meeting) job.peers->abort(rank);
      job.stop.check();  // stopped too, but after a peer
      throw;
    }
    run_.reset();
    job_.reset();
  }

  Resident resident_;
  std::optional<RankJob> job_;    // that is not over
  std::unique_ptr<RankRun> run_;  // of it
};

}  // namespace
}  // namespace xdit::pipeline

// The rank library's one entry.
extern "C" __attribute__((visibility("default"))) xdit::pipeline::Rank* xdit_make_rank() {
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setBenchmarkCuDNN(false);
  at::globalContext().setDeterministicCuDNN(true);
  return new xdit::pipeline::LoadingRank;
}
