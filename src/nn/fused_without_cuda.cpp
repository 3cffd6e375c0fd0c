#include "nn/fused.h"

#include <ATen/ATen.h>

#include "nn/ops.h"

namespace xdit::nn::fused {

Rows layer_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale, double base,
                double eps, bool /*quantised*/, const GatedUpdate& update) {
  if (update.y.defined()) reference::add_gated(x, update);
  return base == 0 ? reference::layer_norm(x, scale, shift, eps)
                   : reference::modulated_layer_norm(x, shift, scale, eps);
}

at::Tensor gated_gelu(const at::Tensor& x) {
  return reference::gated_gelu(x);
}

void add_gated(const at::Tensor& x, const GatedUpdate& update) {
  reference::add_gated(x, update);
}

at::Tensor softmax_numerators(const at::Tensor& out, const at::Tensor& x, double scale) {
  return reference::softmax_numerators(out, x, scale);
}

bool prompt_attention(const at::Tensor& /*out*/, const at::Tensor& /*q*/, const at::Tensor& /*k*/,
                      const at::Tensor& /*v*/, double /*scale*/) {
  return false;
}

void norm_and_rotate(const at::Tensor& qkv, const TokenNorms& norms, const at::Tensor& rotary,
                     const at::Tensor& q, at::TensorList places, double eps) {
  reference::norm_and_rotate(qkv, norms, rotary, q, places, eps);
}

void fill_by_kernels(at::cuda::CUDAGraph& /*graph*/, const at::Tensor& /*counters*/) {}

at::Tensor row_moments(const at::Tensor& x, const GroupNorm& layer) {
  return reference::row_moments(x, layer);
}

at::Tensor merge_rows(const at::Tensor& rows, std::int64_t row_elements) {
  return reference::merge_rows(rows, row_elements);
}

void normalise(const at::Tensor& x, const at::Tensor& whole, const GroupNorm& layer, bool silu,
               const at::Tensor& padded, std::int64_t margin) {
  reference::normalise(x, whole, layer, silu, padded.narrow(2, margin, x.size(2)));
  zero_margin(padded, margin);
}

void quantise_rows(const at::Tensor& x, const Rows& rows) {
  reference::quantise_rows(x, rows);
}

at::Tensor linear(const Rows& x, const Rows& weight, const at::Tensor& bias, bool gelu_tanh,
                  at::ScalarType result, bool /*tf32*/) {
  at::Tensor y = at::linear(x.values.to(at::kFloat), weight.values.to(at::kFloat));
  if (x.quantised()) y = scaled(y, x, weight);
  y = (bias.defined() ? y + bias : y).to(result);
  return gelu_tanh ? activate(y, Activation::kGeluTanh) : y;
}

void linear_into(const at::Tensor& out, const Rows& x, const Rows& weight, const at::Tensor& bias,
                 bool gelu_tanh) {
  out.copy_(linear(x, weight, bias, gelu_tanh, out.scalar_type()));
}

void linear_onto(const at::Tensor& out, const Rows& x, const Rows& weight, const at::Tensor& bias,
                 bool /*tf32*/) {
  out.add_(linear(x, weight, bias, /*gelu_tanh=*/false, out.scalar_type()));
}

}  // namespace xdit::nn::fused
