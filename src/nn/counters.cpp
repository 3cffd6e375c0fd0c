#include "nn/counters.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace xdit::nn {
namespace {

constexpr std::int64_t kBlock = 1 << 20, kMostTaken = 512, kApart = 256;  // bytes

// Of the thread, like Torch's guards: what launches kernels is far below whoever captures them.
thread_local Counters* youngest = nullptr;

}  // namespace

Counters::Counters(c10::Device device)
    : outer_(youngest), block_(at::empty({kBlock}, at::TensorOptions(device).dtype(at::kByte))) {
  youngest = this;
}

Counters::~Counters() {
  youngest = outer_;
}

at::Tensor Counters::used() const {
  return block_.narrow(0, 0, taken_);
}

at::Tensor Counters::take(std::int64_t bytes) {
  if (youngest == nullptr || bytes <= 0 || bytes > kMostTaken || youngest->taken_ + kApart + bytes > kBlock)
    return {};
  at::Tensor words = youngest->block_.narrow(0, youngest->taken_, bytes);
  youngest->taken_ += (bytes + kApart - 1) / kApart * kApart;
  return words;
}

at::Tensor workspace(std::int64_t bytes, c10::Device device) {
  XDIT_ASSERT(youngest == nullptr || youngest->device() == device);
  if (at::Tensor words = Counters::take(bytes); words.defined()) return words;
  return at::empty({bytes}, at::TensorOptions(device).dtype(at::kByte));
}

}  // namespace xdit::nn
