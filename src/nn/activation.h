#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace xdit::nn {

enum class Activation : std::uint8_t { kGelu, kGeluTanh, kQuickGelu, kSilu, kRelu };

/// By transformers' names: "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "silu", "relu".
/// Another name is Error(kModel).
[[nodiscard]] Activation activation_from_name(std::string_view name);

[[nodiscard]] at::Tensor activate(const at::Tensor& x, Activation activation);

}  // namespace xdit::nn
