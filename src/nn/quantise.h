#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

/// Matrices in 8 bits: e4m3 (Micikevicius et al. 2022), each row with a scale of its own.
namespace xdit::nn {

/// values * scales; without scales, the values themselves.
struct Rows {
  Rows() = default;
  Rows(at::Tensor of, at::Tensor by = {})  // NOLINT(google-explicit-constructor): a tensor has rows
      : values(std::move(of)), scales(std::move(by)) {}
  at::Tensor values;  ///< [M, K]; [..., K] where not quantised
  at::Tensor scales;  ///< [M] float32, with values in float8_e4m3fn
  [[nodiscard]] bool quantised() const { return scales.defined(); }
};
/// Memory for `like` [M, K] quantised.
[[nodiscard]] Rows empty_rows(const at::Tensor& like);

/// x [M, K] in e4m3: a row's scale takes its largest magnitude to e4m3's largest, 448; values are rounded to
/// the nearest, ties to even. The same bits on every device, whatever the other rows are.
[[nodiscard]] Rows quantise_rows(const at::Tensor& x);
/// Into memory of that form.
void quantise_rows(const at::Tensor& x, const Rows& rows);

/// x W^T of what they stand for, from the product of their values [M, N] in float32.
[[nodiscard]] at::Tensor scaled(const at::Tensor& product, const Rows& x, const Rows& weight);

/// The Torch form that the kernel is tested against.
namespace reference {
void quantise_rows(const at::Tensor& x, const Rows& rows);
}

}  // namespace xdit::nn
