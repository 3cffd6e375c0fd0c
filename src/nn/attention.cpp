#include "nn/attention.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <vector>

#include "nn/ops.h"
#include "nn/tiles.h"

namespace xdit::nn {

void LocalAttention::attend(std::int64_t /*layer*/, std::span<const Stream> streams, const at::Tensor& rotary,
                            const at::Tensor& out) {
  const at::Tensor& first = streams.front().qkv;
  const std::int64_t heads = first.size(2);
  const std::int64_t head_dim = first.size(3);
  const std::int64_t tokens = rotary.size(0);
  const at::Tensor q = at::empty({tokens, heads, head_dim}, first.options());
  const at::Tensor k = at::empty_like(q);
  const at::Tensor v = at::empty_like(q);
  norm_and_rotate(streams, rotary, q, k, v);
  const auto batched = [](const at::Tensor& x) { return x.unsqueeze(0).transpose(1, 2); };  // [1, H, T, D]
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  const at::Tensor y = scaled_dot_product(batched(q), batched(k), batched(v), scale);
  out.view({tokens, heads, head_dim}).copy_(y.squeeze(0).transpose(0, 1));
}

at::Tensor scaled_dot_product(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                              const at::Tensor& bias, bool causal) {
  // cuDNN's kernel is the fastest on data-centre GPUs (1.9x FlashAttention-2 on an H100) and takes these
  // shapes only.
  const bool cudnn = q.is_cuda() && q.element_size() == 2 && !bias.defined() && q.size(3) % 8 == 0 &&
                     q.size(3) <= 128 && at::globalContext().userEnabledCuDNNSDP();
  if (cudnn)
    return std::get<0>(at::_scaled_dot_product_cudnn_attention(q, k, v, std::nullopt,
                                                               /*compute_log_sumexp=*/false,
                                                               /*dropout_p=*/0.0, causal,
                                                               /*return_debug_mask=*/false, scale));
  if (q.is_cpu()) return tiles::attention(q, k, v, scale, bias, causal);
  const std::optional<at::Tensor> mask = bias.defined() ? std::optional(bias) : std::nullopt;
  return at::scaled_dot_product_attention(q, k, v, mask, /*dropout_p=*/0.0, causal, scale);
}

AttentionPart partial_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  const at::Tensor scores = at::matmul(q.to(at::kFloat), k.to(at::kFloat).transpose(2, 3)) * scale;
  const at::Tensor sum = at::logsumexp(scores, {-1});
  return {at::matmul(at::exp(scores - sum.unsqueeze(-1)), v.to(at::kFloat)), sum};
}

void merge(AttentionPart& into, const AttentionPart& part) {
  if (!into.out.defined()) {
    into = part;
    return;
  }
  const at::Tensor sum = at::logaddexp(into.log_sum_exp, part.log_sum_exp);
  into.out = into.out * at::exp(into.log_sum_exp - sum).unsqueeze(-1) +
             part.out * at::exp(part.log_sum_exp - sum).unsqueeze(-1);
  into.log_sum_exp = sum;
}

at::Tensor rotary_table(const at::Tensor& positions, std::span<const std::int64_t> dims, double theta) {
  std::vector<at::Tensor> angles;
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    const at::Tensor exponents = at::arange(0, dims[axis], 2, positions.options()) / dims[axis];
    angles.push_back(positions.select(1, static_cast<std::int64_t>(axis)).unsqueeze(1) *
                     at::pow(theta, -exponents).unsqueeze(0));
  }
  const at::Tensor all = at::cat(angles, 1);                                      // [T, D / 2]
  return at::stack({at::cos(all), at::sin(all)}, 2).to(at::kFloat).contiguous();  // [T, D / 2, 2]
}

}  // namespace xdit::nn
