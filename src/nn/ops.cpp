#include "nn/ops.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "nn/fused.h"
#include "nn/tiles.h"

namespace xdit::nn {
namespace {

constexpr double kLargestHalf = 65504;

at::Tensor normalised(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor x32 = x.to(at::kFloat);
  return x32 * at::rsqrt(at::mean(at::square(x32), -1, /*keepdim=*/true) + eps) * weight.to(at::kFloat);
}

// x [T, H, D] by rotary [T, D / 2, 2]: channels 2 i and 2 i + 1 are one complex number.
at::Tensor rotated(const at::Tensor& x, const at::Tensor& rotary) {
  const at::Tensor pairs = x.unflatten(-1, {-1, 2});            // [T, H, D / 2, 2]
  const at::Tensor cosine = rotary.select(-1, 0).unsqueeze(1);  // [T, 1, D / 2]
  const at::Tensor sine = rotary.select(-1, 1).unsqueeze(1);
  const at::Tensor real = pairs.select(-1, 0);
  const at::Tensor imaginary = pairs.select(-1, 1);
  return at::stack({real * cosine - imaginary * sine, real * sine + imaginary * cosine}, -1).flatten(-2);
}

}  // namespace

namespace reference {

at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                                double eps) {
  const at::Tensor y = at::layer_norm(x.to(at::kFloat), {x.size(-1)}, {}, {}, eps);
  return (y * (scale.to(at::kFloat) + 1) + shift.to(at::kFloat)).to(x.scalar_type());
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  const at::Tensor y = at::layer_norm(x.to(at::kFloat), {x.size(-1)}, {}, {}, eps);
  return (y * weight.to(at::kFloat) + bias.to(at::kFloat)).to(x.scalar_type());
}

at::Tensor gated_gelu(const at::Tensor& x) {
  const std::vector<at::Tensor> halves = x.to(at::kFloat).chunk(2, -1);
  at::Tensor gate = at::empty_like(halves[1]);
  activate_into(gate, halves[1], Activation::kGelu);
  return gate.mul_(halves[0]).to(x.scalar_type());
}

void add_gated(const at::Tensor& x, const GatedUpdate& update) {
  const at::Tensor sum = x.to(at::kFloat) + update.gate.to(at::kFloat) * update.y.to(at::kFloat);
  x.copy_(x.scalar_type() == at::kHalf ? sum.clamp(-kLargestHalf, kLargestHalf) : sum);
}

at::Tensor softmax_numerators(const at::Tensor& out, const at::Tensor& x, double scale) {
  out.copy_(at::exp((x - x.amax(1, /*keepdim=*/true)) * scale));
  return out.to(at::kFloat).sum(1);
}

void norm_and_rotate(const at::Tensor& qkv, const TokenNorms& norms, const at::Tensor& rotary,
                     const at::Tensor& q, at::TensorList places, double eps) {
  q.copy_(rotated(normalised(qkv.select(1, 0), norms.query, eps), rotary));
  const at::Tensor k = rotated(normalised(qkv.select(1, 1), norms.key, eps), rotary);
  std::int64_t first = 0;
  for (const at::Tensor& place : places) {
    const std::int64_t tokens = place.size(1);
    place[0].copy_(k.narrow(0, first, tokens));
    if (place.size(0) > 1) place[1].copy_(qkv.narrow(0, first, tokens).select(1, 2));
    first += tokens;
  }
}

}  // namespace reference

Rows modulated_rows(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale, bool quantised,
                    const GatedUpdate& update, double eps) {
  if (x.is_cuda()) return fused::layer_norm(x, shift, scale, /*base=*/1, eps, quantised, update);
  if (update.y.defined()) reference::add_gated(x, update);
  const at::Tensor y = reference::modulated_layer_norm(x, shift, scale, eps);
  return quantised ? quantise_rows(y) : y;
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return x.is_cuda() ? fused::layer_norm(x, bias, weight, /*base=*/0, eps).values
                     : reference::layer_norm(x, weight, bias, eps);
}

at::Tensor gated_gelu(const at::Tensor& x) {
  return x.is_cuda() ? fused::gated_gelu(x) : reference::gated_gelu(x);
}

void add_gated(const at::Tensor& x, const GatedUpdate& update) {
  x.is_cuda() ? fused::add_gated(x, update) : reference::add_gated(x, update);
}

at::Tensor softmax_numerators(const at::Tensor& out, const at::Tensor& x, double scale) {
  return x.is_cuda() ? fused::softmax_numerators(out, x, scale)
                     : reference::softmax_numerators(out, x, scale);
}

void norm_and_rotate(const at::Tensor& qkv, const TokenNorms& norms, const at::Tensor& rotary,
                     const at::Tensor& q, at::TensorList places, double eps) {
  XDIT_ASSERT(norms.tokens == qkv.size(0) && norms.tokens == rotary.size(0));
  std::int64_t placed = 0;
  for (const at::Tensor& place : places) placed += place.size(1);
  XDIT_ASSERT(placed == norms.tokens);
  qkv.is_cuda() ? fused::norm_and_rotate(qkv, norms, rotary, q, places, eps)
                : reference::norm_and_rotate(qkv, norms, rotary, q, places, eps);
}

void activate_into(const at::Tensor& out, const at::Tensor& x, Activation activation) {
  if (x.is_cpu()) {
    tiles::activate(x, activation, out);
  } else {
    out.copy_(activate(x, activation));
  }
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return normalised(x, weight, eps).to(x.scalar_type());
}

at::Tensor timestep_embedding(const at::Tensor& times, const TimestepEmbedding& embedding) {
  const std::int64_t half = embedding.width / 2;
  // Rounded in the order of diffusers' get_timestep_embedding: angles reach thousands of radians, so the last
  // bit shows.
  const at::Tensor frequencies =
      at::exp(at::arange(half, times.options().dtype(at::kFloat)) * -std::log(10000.0) /
              (static_cast<double>(half) - embedding.frequency_shift));
  const at::Tensor angles = times.to(at::kFloat).unsqueeze(1) * frequencies.unsqueeze(0);
  const at::Tensor cosine = at::cos(angles), sine = at::sin(angles);
  return embedding.cosine_first ? at::cat({cosine, sine}, 1) : at::cat({sine, cosine}, 1);
}

}  // namespace xdit::nn
