#include "pipeline/rank.h"

#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <new>

#include "core/error.h"
#include "pipeline/handoff.h"
#include "pipeline/marks.h"
#include "pipeline/meet.h"
#include "pipeline/rank_run.h"
#include "pipeline/resident.h"

namespace {

// What a rank used in all its jobs.
void add_up(std::vector<xdit::output::RankUse>& uses) {
  xdit::output::RankUse all = uses.front();
  for (auto use = uses.begin() + 1; use != uses.end(); ++use) {
    all.held_s = use->held_s;  // since the first began
    all.peak_device_bytes = std::max(all.peak_device_bytes, use->peak_device_bytes);
    all.peak_host_bytes = std::max(all.peak_host_bytes, use->peak_host_bytes);
    all.bytes_read += use->bytes_read;
    all.bytes_sent += use->bytes_sent;
  }
  uses = {all};
}

// Ranks without a common launcher of ours tell each other of a failure themselves.
void run_joined(xdit::pipeline::RankJob job, xdit::pipeline::Listener& listener, xdit::output::Report& report,
                xdit::pipeline::Resident& resident, xdit::pipeline::Handoff& handoff) {
  const auto rank = static_cast<int>(job.rank);
  const double begun_s = xdit::pipeline::now_s();
  if (job.meeting)
    job.peers = xdit::pipeline::meet(
        *job.meeting, rank, static_cast<int>(job.plan.ranks.size()),
        std::chrono::milliseconds(std::llround(job.spec.runtime.timeout_s * 1e3)), job.stop);
  try {
    xdit::pipeline::RankRun run(job, listener, report, resident, handoff);
    report.phases.push_back(
        {"connect", begun_s - job.started_s, xdit::pipeline::now_s() - job.started_s, job.rank, -1, -1});
    run.run();
  } catch (...) {
    if (job.meeting) job.peers->abort(rank);
    job.stop.check();  // stopped too, but after a peer
    throw;
  }
}

}  // namespace

// The rank library's one entry.
extern "C" __attribute__((visibility("default"))) void xdit_run_rank(
    const std::vector<xdit::pipeline::RankJob>& jobs, xdit::pipeline::Listener& listener,
    xdit::output::Report& report) {
  using xdit::Error;
  using xdit::ExitCode;
  const char* memory_fix = "--dtype bf16, or a smaller --size";
  try {
    const c10::InferenceMode no_gradients;
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setBenchmarkCuDNN(false);
    at::globalContext().setDeterministicCuDNN(true);
    std::map<const xdit::models::Model*, xdit::pipeline::Resident> residents;
    xdit::pipeline::Handoff handoff;
    for (const xdit::pipeline::RankJob& job : jobs) {
      run_joined(job, listener, report, residents[&job.model], handoff);
      if (job.last) residents.erase(&job.model);
    }
    add_up(report.ranks);
  } catch (const c10::OutOfMemoryError& error) {
    throw Error(ExitCode::kMemory, error.what_without_backtrace(), {}, memory_fix);
  } catch (const c10::Error& error) {
    throw Error(ExitCode::kInternal, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    throw Error(ExitCode::kMemory, "no host memory left", {}, memory_fix);
  }
}
