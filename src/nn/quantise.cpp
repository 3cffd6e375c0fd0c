#include "nn/quantise.h"

#include <ATen/ATen.h>

#include "nn/fused.h"

namespace xdit::nn {

Rows quantise_rows(const at::Tensor& x) {
  Rows rows{at::empty(x.sizes(), x.options().dtype(at::kFloat8_e4m3fn)),
            at::empty({x.size(0)}, x.options().dtype(at::kFloat))};
  quantise_rows(x, rows);
  return rows;
}

void quantise_rows(const at::Tensor& x, const Rows& rows) {
  if (x.is_cuda())
    fused::quantise_rows(x, rows);
  else
    reference::quantise_rows(x, rows);
}

namespace reference {

void quantise_rows(const at::Tensor& x, const Rows& rows) {
  constexpr double kLargest = 448;
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor largest = wide.abs().amax(1);
  const at::Tensor inverse =
      at::where(largest > 0, at::full_like(largest, kLargest) / largest, at::zeros_like(largest));
  rows.scales.copy_(largest / kLargest);
  rows.values.copy_(wide * inverse.unsqueeze(1));
}

}  // namespace reference

}  // namespace xdit::nn
