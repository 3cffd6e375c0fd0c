#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "nn/activation.h"
#include "nn/attention.h"

/// The CPU's products and activations, in tiles of fixed shape computed by one thread each: a row's bits
/// depend neither on how many rows there are nor on how many threads. (MKL and oneDNN choose kernels and
/// splits by both, and the ends of ATen's vector loops take other code than their middles.)
namespace xdit::nn::tiles {

inline constexpr std::int64_t kRows = 32;

/// While it lives, this thread's Torch calls use one thread: their vector loops end where the tensor does.
class OneThread {
 public:
  OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;
  ~OneThread();

 private:
  int threads_;
};

/// f(0), ..., f(tiles - 1), each on one thread.
void for_each(std::int64_t tiles, const std::function<void(std::int64_t)>& f);

/// act(x W^T + b), x [..., in].
[[nodiscard]] at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                const Activation* activation = nullptr);
/// The activation over rows [T, C], which may be strided, into `out` [T, C].
void activate(const at::Tensor& x, Activation activation, const at::Tensor& out);
/// softmax(q k^T scale + bias) v on [B, H, T, D], as nn::scaled_dot_product; at least one key.
[[nodiscard]] AttentionPart attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      double scale, const at::Tensor& bias = {}, bool causal = false);
/// Convolution of [B, C, H, W] with [O, C, K, K]; rows are padded with zeros by `row_padding`, columns by
/// K / 2. A row of the result is a tile.
[[nodiscard]] at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                     std::int64_t row_padding, std::int64_t stride = 1);

}  // namespace xdit::nn::tiles
