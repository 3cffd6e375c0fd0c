#pragma once
#include <ATen/core/Tensor.h>

#include "nn/attention.h"

/// The CUDA kernels of nn/ops.h. A build without CUDA has fused_without_cuda.cpp in place of fused.cpp.
namespace xdit::nn::fused {

[[nodiscard]] at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& shift,
                                              const at::Tensor& scale, double eps);
void add_gated(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y);
void norm_and_rotate(const Stream& stream, const at::Tensor& rotary, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v, double eps);

}  // namespace xdit::nn::fused
