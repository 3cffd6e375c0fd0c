#include "pipeline/torch_errors.h"

#include <c10/util/Exception.h>

#include <functional>
#include <new>

#include "core/error.h"
#include "tests/catch.h"

namespace xdit::pipeline {
namespace {

Error thrown(const std::function<void()>& work) {
  try {
    in_torch(work);
  } catch (const Error& error) {
    return error;
  }
  FAIL("nothing was thrown");
  return Error(ExitCode::kInternal, "");
}

TEST_CASE("LibTorch's errors are told in its first line, memory that is gone by its own exit code") {
  const c10::SourceLocation here{};
  const Error none = thrown([&] {
    throw c10::AcceleratorError(here, 2, "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'");
  });
  CHECK(none.code() == ExitCode::kMemory);
  CHECK(none.message() == "CUDA error: out of memory");
  CHECK_FALSE(none.fix().empty());

  const Error stray = thrown(
      [&] { throw c10::AcceleratorError(here, 700, "CUDA error: an illegal memory access\nFor debugging"); });
  CHECK(stray.code() == ExitCode::kInternal);
  CHECK(stray.message() == "CUDA error: an illegal memory access");

  CHECK(thrown([&] { throw c10::OutOfMemoryError(here, "no room"); }).code() == ExitCode::kMemory);
  CHECK(thrown([] { throw std::bad_alloc(); }).code() == ExitCode::kMemory);
  CHECK(thrown([] { TORCH_CHECK(false, "shapes differ"); }).code() == ExitCode::kInternal);
  CHECK(thrown([] { throw Error(ExitCode::kModel, "ours"); }).code() == ExitCode::kModel);
}

}  // namespace
}  // namespace xdit::pipeline
