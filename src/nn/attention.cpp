#include "nn/attention.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "nn/attention_by_products.h"
#include "nn/fused.h"
#include "nn/ops.h"
#include "nn/tiles.h"

namespace xdit::nn {
namespace {

// Kernels whose result for a query row and head depends on no other row or head (tests/nn/rows_test.cpp):
// FlashAttention-2 splits the keys by the number of queries and heads, and so does cuDNN for a single query.
AttentionPart attend_on_gpu(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            double scale, bool causal, bool sums) {
  constexpr std::int64_t kChannels = 8;  // what the kernels want a head to be a multiple of
  const std::int64_t tokens = query.size(2), dim = query.size(3);
  const std::int64_t channels = (kChannels - dim % kChannels) % kChannels;
  const auto widened = [&](const at::Tensor& x, std::int64_t rows) {
    if (channels > 0 || rows > 0) return at::constant_pad_nd(x, {0, channels, 0, rows});
    return x.stride(3) == 1 ? x : x.contiguous();
  };
  const at::Tensor q = widened(query, tokens == 1 ? 1 : 0), k = widened(key, 0), v = widened(value, 0);
  // cuDNN's kernel is the fastest on data-centre GPUs: 1.9x FlashAttention-2 on an H100.
  const bool cudnn =
      q.element_size() == 2 && q.size(3) <= cudnn::widest_head() && at::globalContext().userEnabledCuDNNSDP();
  at::Tensor out, log_sum_exp;
  if (cudnn)
    std::tie(out, log_sum_exp, std::ignore, std::ignore, std::ignore, std::ignore, std::ignore, std::ignore,
             std::ignore) =
        at::_scaled_dot_product_cudnn_attention(q, k, v, /*attn_bias=*/std::nullopt, sums, /*dropout_p=*/0.0,
                                                causal, /*return_debug_mask=*/false, scale);
  else
    std::tie(out, log_sum_exp, std::ignore, std::ignore) = at::_scaled_dot_product_efficient_attention(
        q, k, v, /*attn_bias=*/std::nullopt, sums, /*dropout_p=*/0.0, causal, scale);
  if (sums) log_sum_exp = log_sum_exp.reshape({q.size(0), q.size(1), -1}).narrow(2, 0, tokens);
  return {out.narrow(2, 0, tokens).narrow(3, 0, dim), log_sum_exp};
}

}  // namespace

void TokenAttention::operator()(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v) {
  if (q.numel() == 0) return;
  const auto batched = [](const at::Tensor& x) {
    return (x.dim() == 3 ? x.unsqueeze(0) : x).transpose(1, 2);  // [B, H, T, D]
  };
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(-1)));
  const at::Tensor to = batched(out), queries = batched(q), keys = batched(k), values = batched(v);
  if (q.is_cuda() && (fused::prompt_attention(to, queries, keys, values, scale) ||
                      (*in_place_)(to, queries, keys, values, scale)))
    return;
  to.copy_(scaled_dot_product(queries, keys, values, scale));
}

RotatedTokens::RotatedTokens(const at::Tensor& of, const at::Tensor& by, std::vector<at::Tensor> to)
    : qkv(of),
      rotary(by),
      query(at::empty({of.size(0), of.size(2), of.size(3)}, of.options())),
      value(of.select(1, 2)),
      places(std::move(to)) {
  XDIT_ASSERT(rotary.size(0) == qkv.size(0));
  if (!places.empty()) return;
  key = at::empty_like(query);
  places = {key.unsqueeze(0)};
}

void RotatedTokens::add(std::int64_t first, const TokenNorms& norms) {
  const auto rows = [&](const at::Tensor& x) { return x.narrow(0, first, norms.tokens); };
  std::vector<at::Tensor> to;
  std::int64_t row = 0;
  for (const at::Tensor& place : places) {
    const std::int64_t begin = std::max(row, first);
    const std::int64_t end = std::min(row + place.size(1), first + norms.tokens);
    if (begin < end) to.push_back(place.narrow(1, begin - row, end - begin));
    row += place.size(1);
  }
  norm_and_rotate(rows(qkv), norms, rows(rotary), rows(query), to);
  count += norms.tokens;
}

void LocalAttention::begin(std::int64_t /*layer*/, const at::Tensor& qkv, const at::Tensor& rotary) {
  tokens_ = RotatedTokens(qkv, rotary);
}

void LocalAttention::add(std::int64_t first, const TokenNorms& norms) {
  tokens_.add(first, norms);
}

void LocalAttention::finish(const at::Tensor& out) {
  XDIT_ASSERT(tokens_.count == tokens_.qkv.size(0));
  attention_(out.unflatten(1, {tokens_.query.size(1), tokens_.query.size(2)}), tokens_.query, tokens_.key,
             tokens_.value);
  tokens_ = {};
}

at::Tensor scaled_dot_product(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                              const at::Tensor& bias, bool causal, bool tf32) {
  constexpr std::int64_t kWidest = 256;  // head that a fast kernel takes on any GPU
  if (q.numel() == 0) return at::empty(q.sizes(), q.options());
  if (q.is_cpu()) return tiles::attention(q, k, v, scale, bias, causal).out;
  if (bias.defined())
    return at::scaled_dot_product_attention(q, k, v, bias, /*dropout_p=*/0.0, causal, scale);
  if (q.size(3) > kWidest && !causal) return attention_by_products(q, k, v, scale, tf32);
  return attend_on_gpu(q, k, v, scale, causal, /*sums=*/false).out;
}

AttentionPart partial_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  if (q.numel() == 0 || k.numel() == 0)
    return {at::zeros(q.sizes(), q.options()),
            at::full({q.size(0), q.size(1), q.size(2)}, -std::numeric_limits<float>::infinity(),
                     q.options().dtype(at::kFloat))};
  if (!q.is_cpu()) return attend_on_gpu(q, k, v, scale, /*causal=*/false, /*sums=*/true);
  return tiles::attention(q, k, v, scale);
}

void merge(AttentionPart& into, const AttentionPart& part) {
  if (!into.out.defined()) {
    into = part;
    return;
  }
  // The part's share exp(b) / (exp(a) + exp(b)); two empty sets, whose difference is no number, share alike.
  const at::Tensor share = at::sigmoid(at::nan_to_num(part.log_sum_exp - into.log_sum_exp));
  into.out = at::lerp(into.out.to(at::kFloat), part.out.to(at::kFloat), share.unsqueeze(-1));
  into.log_sum_exp = at::logaddexp(into.log_sum_exp, part.log_sum_exp);
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
