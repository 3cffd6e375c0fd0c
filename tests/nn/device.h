#pragma once
#include <ATen/ATen.h>

#include <cstdlib>

namespace xdit::test {

/// The CPU, or the first GPU where XDIT_TEST_CUDA is set.
inline at::Device device() {
  return std::getenv("XDIT_TEST_CUDA") != nullptr ? at::Device("cuda:0") : at::Device("cpu");
}

/// A rounding of the result costs at most half a unit in the last place; sums in float32 cost less.
inline double tolerance(at::ScalarType type) {
  return type == at::kFloat ? 1e-6 : type == at::kHalf ? 5e-4 : 4e-3;
}

inline at::Tensor randn(at::IntArrayRef shape, at::ScalarType type) {
  return at::randn(shape, at::TensorOptions().dtype(at::kFloat).device(device())).to(type);
}

}  // namespace xdit::test
