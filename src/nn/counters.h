#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace xdit::nn {

/// Where kernels of cuBLASLt's and cuDNN's that deal out their tiles count them: a few words that each wants
/// as zeros, and fills before it runs. While a Counters lives, each such launch of its thread gets words of
/// its own from one block, so that a captured graph can fill all of them at once (fused::fill_by_kernels).
class Counters {
 public:
  explicit Counters(c10::Device device);
  Counters(const Counters&) = delete;
  Counters& operator=(const Counters&) = delete;
  ~Counters();
  [[nodiscard]] c10::Device device() const { return block_.device(); }
  [[nodiscard]] at::Tensor used() const;  ///< the words that were given out, which the graph needs

  /// `bytes` of the thread's youngest Counters; undefined where there is none, it has not so many, or none
  /// are wanted.
  [[nodiscard]] static at::Tensor take(std::int64_t bytes);

 private:
  Counters* outer_;
  at::Tensor block_;
  std::int64_t taken_ = 0;
};

/// Memory on `device` that one launch works in: words of a Counters, if it is that little.
[[nodiscard]] at::Tensor workspace(std::int64_t bytes, c10::Device device);

}  // namespace xdit::nn
