#pragma once
#include <ATen/ATen.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/json.h"
#include "tests/catch.h"
#include "tests/tensors.h"

namespace xdit::test {

/// What forwards of tests run on.
inline at::Device device() {
  return std::getenv("XDIT_TEST_CUDA") != nullptr ? at::Device("cuda:0") : at::Device("cpu");
}

/// Inputs of forwards and diffusers' errors: tests/data/NAME/errors.json, or those that
/// scripts/bench/gpu_errors.py found elsewhere.
inline Json read_errors(const std::string& name) {
  const char* elsewhere = std::getenv("XDIT_TEST_ERRORS");
  return read_json(elsewhere != nullptr ? std::filesystem::path(elsewhere) / (name + ".json")
                                        : std::filesystem::path(XDIT_TEST_DATA) / name / "errors.json",
                   ExitCode::kModel);
}

/// An output of a network, of inputs drawn from a seed.
using SeededForward = std::function<at::Tensor(std::uint64_t seed, at::ScalarType type)>;

/// In bf16 and fp16 the forward is no further from float32 than diffusers' is, by its `errors`. `seeds` in
/// order; the float32 output of the first.
inline at::Tensor check_half_errors(const std::string& name, const Json& seeds, const Json& errors,
                                    const SeededForward& forward) {
  std::vector<at::Tensor> reference;
  for (const Json& seed : seeds) reference.push_back(forward(seed, at::kFloat));
  for (const auto& [dtype, type] : {std::pair{"bfloat16", at::kBFloat16}, {"float16", at::kHalf}}) {
    double squares = 0;
    for (std::size_t i = 0; i < seeds.size(); ++i)
      squares += std::pow(relative_error(forward(seeds[i], type), reference[i]), 2);
    const double error = std::sqrt(squares / static_cast<double>(seeds.size()));
    const double theirs = errors.at(dtype).get<double>();
    CAPTURE(name, dtype, error, theirs, error / theirs);
    CHECK(error <= 1.05 * theirs);
    if (std::getenv("XDIT_TEST_PRINT") != nullptr)
      std::printf("%s %s: error %.3e, diffusers' %.3e, ratio %.3f\n", name.c_str(), dtype, error, theirs,
                  error / theirs);
  }
  return reference.front();
}

}  // namespace xdit::test
