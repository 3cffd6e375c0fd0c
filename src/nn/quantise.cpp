#include "nn/quantise.h"

#include <ATen/ATen.h>

#include "nn/fused.h"

namespace xdit::nn {

Rows empty_rows(const at::Tensor& like) {
  return {at::empty(like.sizes(), like.options().dtype(at::kFloat8_e4m3fn)),
          at::empty({like.size(0)}, like.options().dtype(at::kFloat))};
}

Rows quantise_rows(const at::Tensor& x) {
  Rows rows = empty_rows(x);
  quantise_rows(x, rows);
  return rows;
}

void quantise_rows(const at::Tensor& x, const Rows& rows) {
  if (x.is_cuda())
    fused::quantise_rows(x, rows);
  else
    reference::quantise_rows(x, rows);
}

at::Tensor scaled(const at::Tensor& product, const Rows& x, const Rows& weight) {
  return product * x.scales.unsqueeze(1) * weight.scales;
}

namespace reference {

void quantise_rows(const at::Tensor& x, const Rows& rows) {
  constexpr double kLargest = 448;
  constexpr double kSmallest = 1e-30;  // 448 over it is finite
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor largest = wide.abs().amax(1).clamp_min(kSmallest);
  const at::Tensor inverse = at::full_like(largest, kLargest) / largest;
  rows.scales.copy_(largest / kLargest);
  rows.values.copy_(wide * inverse.unsqueeze(1));
}

}  // namespace reference

}  // namespace xdit::nn
