#include "pipeline/torch_errors.h"

#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <new>
#include <string>

#include "core/error.h"

namespace xdit::pipeline {
namespace {

// What follows is advice on debugging LibTorch.
std::string first_line(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  return text.substr(0, text.find('\n'));
}

}  // namespace

void in_torch(const std::function<void()>& work) {
  const char* memory_fix = "--dtype bf16, or a smaller --size";
  try {
    const c10::InferenceMode no_gradients;
    work();
  } catch (const c10::OutOfMemoryError& error) {
    throw Error(ExitCode::kMemory, error.what_without_backtrace(), {}, memory_fix);
  } catch (const c10::AcceleratorError& error) {
    constexpr int kNoMemory = 2;  // cudaErrorMemoryAllocation, from what LibTorch's allocator does not serve
    if (error.get_error_code() == kNoMemory)
      throw Error(ExitCode::kMemory, first_line(error), {}, memory_fix);
    throw Error(ExitCode::kInternal, first_line(error));
  } catch (const c10::Error& error) {
    throw Error(ExitCode::kInternal, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    throw Error(ExitCode::kMemory, "no host memory left", {}, memory_fix);
  }
}

}  // namespace xdit::pipeline
