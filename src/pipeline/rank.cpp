#include "pipeline/rank.h"

#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <new>

#include "core/error.h"
#include "pipeline/rank_run.h"

// The rank library's one entry.
extern "C" __attribute__((visibility("default"))) void xdit_run_rank(const xdit::pipeline::RankJob& job,
                                                                     xdit::pipeline::Listener& listener,
                                                                     xdit::output::Report& report) {
  using xdit::Error;
  using xdit::ExitCode;
  const char* memory_fix = "--dtype bf16, or a smaller --size";
  try {
    const c10::InferenceMode no_gradients;
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setBenchmarkCuDNN(false);
    at::globalContext().setDeterministicCuDNN(true);
    xdit::pipeline::RankRun(job, listener, report).run();
  } catch (const c10::OutOfMemoryError& error) {
    throw Error(ExitCode::kMemory, error.what_without_backtrace(), {}, memory_fix);
  } catch (const c10::Error& error) {
    throw Error(ExitCode::kInternal, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    throw Error(ExitCode::kMemory, "no host memory left", {}, memory_fix);
  }
}
