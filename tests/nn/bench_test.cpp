// XDIT_TEST_CUDA=1 build/test_nn "[bench]" prints the microseconds of FLUX's products beside at::linear's, on
// the GPU and on the host, and of its updates and norms in one pass beside one by one.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <string>
#include <utility>

#include "nn/linear.h"
#include "nn/ops.h"
#include "tests/catch.h"
#include "tests/nn/device.h"

namespace xdit::nn {
namespace {

struct Microseconds {
  double gpu = 1e30, host = 1e30;
};

// The least of several turns, in which the functions alternate: the clock moves under load.
template <std::size_t N, class F>
std::array<Microseconds, N> fastest(const std::array<F, N>& functions) {
  constexpr int kTurns = 8, kCalls = 10;
  std::array<Microseconds, N> times;
  for (int turn = 0; turn < kTurns; ++turn)
    for (std::size_t i = 0; i < N; ++i) {
      at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
      begin.record();
      const auto start = std::chrono::steady_clock::now();
      for (int call = 0; call < kCalls; ++call) static_cast<void>(functions[i]());
      const std::chrono::duration<double, std::micro> host = std::chrono::steady_clock::now() - start;
      end.record();
      end.synchronize();
      times[i].gpu = std::min(times[i].gpu, 1e3 * begin.elapsed_time(end) / kCalls);
      times[i].host = std::min(times[i].host, host.count() / kCalls);
    }
  return times;
}

TEST_CASE("the time of products", "[.bench]") {
  const at::Device gpu = test::device();
  REQUIRE(gpu.is_cuda());
  const c10::InferenceMode inference;
  using Call = std::function<at::Tensor()>;
  fmt::print("{:<8} {:>12} {:>5} {:>10} {:>10} {:>6}   host: ours, Torch's\n", "", "out x in", "rows",
             "ours us", "Torch's us", "ratio");
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat})
    for (const auto& [out, in] : {std::pair<std::int64_t, std::int64_t>{9216, 3072},
                                  {3072, 3072},
                                  {12288, 3072},
                                  {3072, 12288},
                                  {21504, 3072},
                                  {3072, 15360},
                                  {3072, 64},
                                  {3072, 4096},
                                  {64, 3072}}) {
      if (type == at::kHalf && out != 3072) continue;
      const at::Tensor weight = test::randn({out, in}, type) / std::sqrt(static_cast<double>(in));
      const at::Tensor bias = test::randn({out}, type);
      const std::string shape = fmt::format("{}x{}", out, in);
      const ResidentWeights weights({{"a.weight", weight}, {"a.bias", bias}});
      const auto layer = LocalLinears().make(weights, "a", true);
      for (const std::int64_t rows : {4608, 4096, 2304, 512, 64, 1}) {
        const at::Tensor x = test::randn({rows, in}, type);
        const auto print = [&](const char* name, const Call& ours, const Call& torch) {
          const auto [a, b] = fastest(std::array{ours, torch});
          fmt::print("{:<8} {:>12} {:>5} {:>10.1f} {:>10.1f} {:>6.3f}   {:.1f}, {:.1f}  {}\n",
                     at::toString(type), shape, rows, a.gpu, b.gpu, a.gpu / b.gpu, a.host, b.host, name);
        };
        print(
            "", [&] { return (*layer)(x); }, [&] { return at::linear(x, weight, bias); });
        if (out == 12288)
          print(
              "gelu", [&] { return (*layer)(x, Activation::kGeluTanh); },
              [&] { return at::_addmm_activation(bias, x, weight.t(), 1, 1, /*use_gelu=*/true); });
        if (type == at::kBFloat16 && rows > 64) {
          const Rows quantised = quantise_rows(weight), of_x = quantise_rows(x);
          const ResidentWeights bytes(
              {{"a.weight", quantised.values}, {"a.weight_scale", quantised.scales}, {"a.bias", bias}});
          const auto in_e4m3 = LocalLinears().make(bytes, "a", true);
          print(
              "e4m3", [&] { return (*in_e4m3)(x); },
              [&] {
                return at::_scaled_mm(of_x.values, quantised.values.t(), of_x.scales.unsqueeze(1),
                                      quantised.scales.unsqueeze(0), {}, {}, at::kBFloat16,
                                      /*use_fast_accum=*/true);
              });
          print(
              "rows to e4m3", [&] { return quantise_rows(x).values; }, [&] { return x.abs().amax(1); });
        }
        if (out == 3072 && in > 3072)
          print(
              "to float32", [&] { return linear_partial(x, {weight}); },
              [&] { return at::linear(x, weight); });
      }
    }
}

TEST_CASE("the time of a gated update and the norm behind it", "[.bench]") {
  REQUIRE(test::device().is_cuda());
  const c10::InferenceMode inference;
  fmt::print("{:<8} {:>5} {:>5} {:>11} {:>13} {:>6}\n", "", "rows", "", "one pass us", "one by one us",
             "ratio");
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat})
    for (const std::int64_t rows : {4608, 4096, 2304, 512})
      for (const bool quantised : {false, true}) {
        const at::Tensor x = test::randn({rows, 3072}, type), shift = test::randn({3072}, type);
        const GatedUpdate update{test::randn({3072}, type) / 100, test::randn({rows, 3072}, type)};
        const std::array<std::function<Rows()>, 2> functions{
            [&] { return modulated_rows(x, shift, shift, quantised, update); },
            [&] {
              add_gated(x, update);
              return modulated_rows(x, shift, shift, quantised);
            }};
        const auto [a, b] = fastest(functions);
        fmt::print("{:<8} {:>5} {:>5} {:>11.1f} {:>13.1f} {:>6.3f}\n", at::toString(type), rows,
                   quantised ? "e4m3" : "", a.gpu, b.gpu, a.gpu / b.gpu);
      }
}

}  // namespace
}  // namespace xdit::nn
