#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace xdit::nn {

/// softmax(q k^T scale) v on [B, H, T, D] tensors of any strides by products, for heads that no kernel takes;
/// scale is positive. `tf32`: on a GPU, of factors in float32 rounded to TF32. A query row's bits depend on
/// no other row or head, nor on `rows`, of q at once (0: as many as have 256 MB of scores, or 1024).
[[nodiscard]] at::Tensor attention_by_products(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                               double scale, bool tf32 = false, std::int64_t rows = 0);

}  // namespace xdit::nn
