#include "nn/fused.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/error.h"
#include "cuda/kernels.h"
#include "cuda/pictures.h"
#include "cuda/prompt_attention.h"
#include "nn/spatial.h"

namespace xdit::nn::fused {
namespace {

cuda::Type type_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return cuda::Type::kF32;
    case at::kHalf:
      return cuda::Type::kF16;
    case at::kBFloat16:
      return cuda::Type::kBF16;
    default:
      broken_invariant("the tensor is float32, float16 or bfloat16", __FILE__, __LINE__);
  }
}

cudaStream_t stream_of(const at::Tensor& x) {
  return at::cuda::getCurrentCUDAStream(x.get_device());
}

// What is added to rows x.
cuda::GatedUpdate gated_update(const at::Tensor& x, const GatedUpdate& update) {
  const auto& [gate, y] = update;
  if (!y.defined()) return {};
  XDIT_ASSERT(y.sizes() == x.sizes() && y.stride(1) == 1 && y.scalar_type() == x.scalar_type());
  XDIT_ASSERT(gate.is_contiguous() && gate.scalar_type() == x.scalar_type());
  return {.gate = gate.const_data_ptr(), .y = y.const_data_ptr(), .y_stride = y.stride(0)};
}

// Of pictures [B, C, H, W] whose memory is [H, W, C] each.
cuda::Picture shape_of(const at::Tensor& x) {
  XDIT_ASSERT(x.dim() == 4 && x[0].permute({1, 2, 0}).is_contiguous());
  return {.pictures = x.size(0), .rows = x.size(2), .columns = x.size(3), .channels = x.size(1)};
}

}  // namespace

Rows layer_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale, double base,
                double eps, bool quantised, const GatedUpdate& update) {
  XDIT_ASSERT(x.dim() == 2 && x.stride(1) == 1 && shift.is_contiguous() && scale.is_contiguous());
  XDIT_ASSERT(shift.scalar_type() == x.scalar_type() && scale.scalar_type() == x.scalar_type());
  Rows y = quantised ? empty_rows(x) : Rows{at::empty(x.sizes(), x.options())};
  const cuda::LayerNorm arguments{.x = x.mutable_data_ptr(),
                                  .x_stride = x.stride(0),
                                  .update = gated_update(x, update),
                                  .shift = shift.const_data_ptr(),
                                  .scale = scale.const_data_ptr(),
                                  .base = static_cast<float>(base),
                                  .y = y.values.mutable_data_ptr(),
                                  .scales = quantised ? y.scales.mutable_data_ptr<float>() : nullptr,
                                  .rows = x.size(0),
                                  .width = x.size(1),
                                  .eps = static_cast<float>(eps)};
  C10_CUDA_CHECK(cuda::layer_norm(type_of(x), arguments, stream_of(x)));
  return y;
}

at::Tensor gated_gelu(const at::Tensor& x) {
  XDIT_ASSERT(x.dim() == 2 && x.stride(1) == 1 && x.size(1) % 2 == 0);
  at::Tensor y = at::empty({x.size(0), x.size(1) / 2}, x.options());
  C10_CUDA_CHECK(cuda::gated_gelu(type_of(x), x.const_data_ptr(), x.stride(0), y.mutable_data_ptr(),
                                  y.size(0), y.size(1), stream_of(x)));
  return y;
}

void quantise_rows(const at::Tensor& x, const Rows& rows) {
  XDIT_ASSERT(x.dim() == 2 && x.stride(1) == 1 && rows.values.sizes() == x.sizes());
  XDIT_ASSERT(rows.values.is_contiguous() && rows.scales.is_contiguous());
  C10_CUDA_CHECK(cuda::quantise_rows(type_of(x), x.const_data_ptr(), x.stride(0),
                                     rows.values.mutable_data_ptr(), rows.scales.mutable_data_ptr<float>(),
                                     x.size(0), x.size(1), stream_of(x)));
}

void add_gated(const at::Tensor& x, const GatedUpdate& update) {
  XDIT_ASSERT(x.dim() == 2 && x.stride(1) == 1);
  C10_CUDA_CHECK(cuda::add_gated(type_of(x), x.mutable_data_ptr(), x.stride(0), gated_update(x, update),
                                 x.size(0), x.size(1), stream_of(x)));
}

at::Tensor softmax_numerators(const at::Tensor& out, const at::Tensor& x, double scale) {
  XDIT_ASSERT(x.dim() == 2 && x.stride(1) == 1 && x.scalar_type() == at::kFloat);
  XDIT_ASSERT(out.sizes() == x.sizes() && out.stride(1) == 1);
  at::Tensor sums = at::empty({x.size(0)}, x.options());
  const cuda::SoftmaxNumerators arguments{.x = x.const_data_ptr<float>(),
                                          .x_stride = x.stride(0),
                                          .scale = static_cast<float>(scale),
                                          .y = out.mutable_data_ptr(),
                                          .y_stride = out.stride(0),
                                          .sums = sums.mutable_data_ptr<float>(),
                                          .rows = x.size(0),
                                          .width = x.size(1)};
  C10_CUDA_CHECK(cuda::softmax_numerators(type_of(out), arguments, stream_of(x)));
  return sums;
}

bool prompt_attention(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      double scale) {
  constexpr std::int64_t kStep = 8;  // elements of 16 bytes
  // By what every rank sees alike: other kernels give other bits.
  if (out.element_size() != 2 || q.size(3) > cuda::kWidestPromptHead || q.size(3) % kStep != 0 ||
      k.size(2) < 1 || k.size(2) > cuda::kMostPromptKeys)
    return false;
  XDIT_ASSERT(out.sizes() == q.sizes() && v.sizes() == k.sizes());
  const auto aligned = [](const at::Tensor& x) {
    return cudnn::rows_are_aligned(x) ? x : x.clone(at::MemoryFormat::Contiguous);
  };
  const auto operand = [&](const at::Tensor& x) {
    XDIT_ASSERT(x.scalar_type() == out.scalar_type() && x.size(0) == q.size(0) && x.size(1) == q.size(1) &&
                x.size(3) == q.size(3));
    return cuda::PromptAttention::Operand{.data = x.data_ptr(),
                                          .picture_stride = x.stride(0),
                                          .head_stride = x.stride(1),
                                          .token_stride = x.stride(2)};
  };
  const at::Tensor queries = aligned(q), keys = aligned(k), values = aligned(v), to = aligned(out);
  const cuda::PromptAttention arguments{.q = operand(queries),
                                        .k = operand(keys),
                                        .v = operand(values),
                                        .out = operand(to),
                                        .pictures = q.size(0),
                                        .heads = q.size(1),
                                        .tokens = q.size(2),
                                        .keys = k.size(2),
                                        .head_dim = q.size(3),
                                        .scale = static_cast<float>(scale)};
  C10_CUDA_CHECK(cuda::prompt_attention(type_of(out), arguments, stream_of(out)));
  if (!to.is_same(out)) out.copy_(to);
  return true;
}

void norm_and_rotate(const at::Tensor& qkv, const TokenNorms& norms, const at::Tensor& rotary,
                     const at::Tensor& q, at::TensorList places, double eps) {
  XDIT_ASSERT(qkv.dim() == 4 && qkv.stride(3) == 1 && qkv.stride(2) == qkv.size(3) &&
              qkv.stride(1) == qkv.size(2) * qkv.size(3));
  XDIT_ASSERT(q.is_contiguous() && rotary.is_contiguous());
  XDIT_ASSERT(rotary.scalar_type() == at::kFloat && rotary.size(0) == qkv.size(0) && qkv.size(3) % 2 == 0);
  std::int64_t first = 0;  // of a launch, which has room for so many places
  while (!places.empty()) {
    const auto rest = [first](const at::Tensor& x) { return x.slice(0, first); };
    cuda::NormAndRotate arguments{.qkv = rest(qkv).const_data_ptr(),
                                  .token_stride = qkv.stride(0),
                                  .query_norm = norms.query.const_data_ptr(),
                                  .key_norm = norms.key.const_data_ptr(),
                                  .rotary = rest(rotary).const_data_ptr<float>(),
                                  .q = rest(q).mutable_data_ptr(),
                                  .keys = {},
                                  .heads = qkv.size(2),
                                  .head_dim = qkv.size(3),
                                  .eps = static_cast<float>(eps)};
    for (cuda::NormAndRotate::Keys& keys : arguments.keys) {
      if (places.empty()) break;
      const at::Tensor& place = places.front();
      const at::Tensor k = place[0];
      XDIT_ASSERT(k.is_contiguous() && k.sizes().slice(1) == q.sizes().slice(1) &&
                  k.scalar_type() == qkv.scalar_type());
      keys = {.k = k.mutable_data_ptr(),
              .v = place.size(0) > 1 ? place[1].mutable_data_ptr() : nullptr,
              .tokens = place.size(1)};
      first += keys.tokens;
      places = places.slice(1);
    }
    C10_CUDA_CHECK(cuda::norm_and_rotate(type_of(qkv), arguments, stream_of(qkv)));
  }
}

void fill_by_kernels(at::cuda::CUDAGraph& graph, const at::Tensor& counters) {
  C10_CUDA_CHECK(cuda::fill_by_kernels(graph.raw_cuda_graph(), counters.data_ptr(), counters.nbytes()));
}

namespace {

cuda::Shift shift_of(const GroupNorm& layer, const at::Tensor& x) {
  const at::Tensor& shift = layer.shift;
  if (!shift.defined()) return {};
  XDIT_ASSERT(shift.size(0) == x.size(0) && shift.size(1) == x.size(1) && shift.stride(1) == 1 &&
              shift.scalar_type() == x.scalar_type());
  return {shift.const_data_ptr(), shift.stride(0)};
}

}  // namespace

at::Tensor row_moments(const at::Tensor& x, const GroupNorm& layer) {
  at::Tensor moments = at::empty({x.size(0), x.size(2), layer.groups, 2}, x.options().dtype(at::kFloat));
  C10_CUDA_CHECK(cuda::row_moments(type_of(x), x.const_data_ptr(), x.stride(0), shift_of(layer, x),
                                   shape_of(x), layer.groups, moments.mutable_data_ptr<float>(),
                                   stream_of(x)));
  return moments;
}

at::Tensor merge_rows(const at::Tensor& rows, std::int64_t row_elements) {
  XDIT_ASSERT(rows.is_contiguous() && rows.scalar_type() == at::kFloat);
  at::Tensor whole = at::empty({rows.size(0), rows.size(2), 2}, rows.options());
  C10_CUDA_CHECK(cuda::merge_rows(rows.mutable_data_ptr<float>(), rows.size(0), rows.size(1), rows.size(2),
                                  row_elements, whole.mutable_data_ptr<float>(), stream_of(rows)));
  return whole;
}

void normalise(const at::Tensor& x, const at::Tensor& whole, const GroupNorm& layer, bool silu,
               const at::Tensor& padded, std::int64_t margin) {
  static_cast<void>(shape_of(padded));
  const at::Tensor out = padded.narrow(2, margin, padded.size(2) - 2 * margin);
  XDIT_ASSERT(out.sizes() == x.sizes() && out.scalar_type() == x.scalar_type() && whole.is_contiguous());
  XDIT_ASSERT(layer.weight.is_contiguous() && layer.weight.scalar_type() == x.scalar_type() &&
              layer.bias.is_contiguous() && layer.bias.scalar_type() == x.scalar_type());
  const cuda::Normalise arguments{.shape = shape_of(x),
                                  .x_stride = x.stride(0),
                                  .y_stride = out.stride(0),
                                  .shift = shift_of(layer, x),
                                  .whole = whole.const_data_ptr<float>(),
                                  .groups = layer.groups,
                                  .weight = layer.weight.const_data_ptr(),
                                  .bias = layer.bias.const_data_ptr(),
                                  .eps = static_cast<float>(layer.eps),
                                  .silu = silu,
                                  .margin = margin};
  C10_CUDA_CHECK(
      cuda::normalise(type_of(x), x.const_data_ptr(), out.mutable_data_ptr(), arguments, stream_of(x)));
}

at::Tensor window(const at::Tensor& x, const Window& of) {
  static_cast<void>(shape_of(x));
  XDIT_ASSERT(of.end <= of.scale * x.size(2) && of.columns <= of.scale * x.size(3));
  at::Tensor y = at::empty({x.size(0), x.size(1), of.rows, of.columns},
                           x.options().memory_format(at::MemoryFormat::ChannelsLast));
  const cuda::Window arguments{.shape = shape_of(y),
                               .x_stride = x.stride(0),
                               .x_columns = x.size(3),
                               .scale = of.scale,
                               .first = of.first,
                               .end = of.end};
  C10_CUDA_CHECK(cuda::window(type_of(x), x.const_data_ptr(), y.mutable_data_ptr(), arguments, stream_of(x)));
  return y;
}

}  // namespace xdit::nn::fused
