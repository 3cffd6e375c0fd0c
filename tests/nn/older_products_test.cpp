// The products of GPUs before Hopper, on a Hopper: XDIT_TEST_OLDER_PRODUCTS=1 test_nn "products by rows*"
// hides cuBLASLt's newest kernels from whoever asks this program's heuristics, so that gemm.cpp takes one of
// another family.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "nn/linear.h"
#include "tests/catch.h"
#include "tests/nn/device.h"

namespace {

constexpr std::int32_t kNvjet = 66;  // of nn/gemm.cpp
constexpr int kMany = 256;           // so many that one of another family is among them

std::int64_t& times_asked() {
  static std::int64_t times = 0;
  return times;
}

// Of libcublasLt, not of this program.
template <class F>
F* original(const char* name) {
  return reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name));
}

bool is_nvjet(const cublasLtMatmulHeuristicResult_t& result) {
  static auto* const get =
      original<decltype(cublasLtMatmulAlgoConfigGetAttribute)>("cublasLtMatmulAlgoConfigGetAttribute");
  std::int32_t id = 0;
  std::size_t written = 0;
  get(&result.algo, CUBLASLT_ALGO_CONFIG_ID, &id, sizeof id, &written);
  return id == kNvjet;
}

}  // namespace

// Stands before the library's.
extern "C" cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t preference, int most, cublasLtMatmulHeuristicResult_t* results, int* found) {
  static auto* const ask =
      original<decltype(cublasLtMatmulAlgoGetHeuristic)>("cublasLtMatmulAlgoGetHeuristic");
  ++times_asked();
  if (std::getenv("XDIT_TEST_OLDER_PRODUCTS") == nullptr)
    return ask(handle, operation, a, b, c, d, preference, most, results, found);
  std::vector<cublasLtMatmulHeuristicResult_t> all(kMany);
  int count = 0;
  const cublasStatus_t status = ask(handle, operation, a, b, c, d, preference, kMany, all.data(), &count);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  all.resize(static_cast<std::size_t>(count));
  std::erase_if(all, is_nvjet);
  all.resize(std::min(all.size(), static_cast<std::size_t>(most)));
  std::ranges::copy(all, results);
  *found = static_cast<int>(all.size());
  return all.empty() ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

namespace xdit::nn {

TEST_CASE("products ask this program's heuristics") {
  if (!test::device().is_cuda()) return;
  const c10::InferenceMode inference;
  const std::int64_t before = times_asked();
  static_cast<void>(nn::linear(test::randn({5, 48}, at::kBFloat16), test::randn({32, 48}, at::kBFloat16)));
  CHECK(times_asked() > before);
}

}  // namespace xdit::nn
