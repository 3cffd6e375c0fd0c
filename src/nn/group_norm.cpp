#include "nn/group_norm.h"

#include <ATen/ATen.h>

#include "nn/fused.h"
#include "nn/tiles.h"

namespace xdit::nn {
namespace reference {

namespace {

// [C, W] in float32.
at::Tensor shifted_row(const at::Tensor& x, const at::Tensor& shift, std::int64_t picture, std::int64_t row) {
  const at::Tensor values = x[picture].select(1, row).to(at::kFloat).contiguous();
  return shift.defined() ? values + shift[picture].to(at::kFloat).unsqueeze(1) : values;
}

}  // namespace

// Tiles of one row [G, C / G * W]: every row has the same shape, so the same order.
at::Tensor row_moments(const at::Tensor& x, const GroupNorm& layer) {
  at::Tensor moments = at::empty({x.size(0), x.size(2), layer.groups, 2}, x.options().dtype(at::kFloat));
  tiles::for_each(x.size(0) * x.size(2), [&](std::int64_t index) {
    const std::int64_t picture = index / x.size(2), row = index % x.size(2);
    const at::Tensor values = shifted_row(x, layer.shift, picture, row).view({layer.groups, -1});
    const at::Tensor mean = values.mean(1, /*keepdim=*/true);
    const at::Tensor to = moments[picture][row];
    to.select(1, 0).copy_(mean.squeeze(1));
    to.select(1, 1).copy_((values - mean).square_().sum(1));
  });
  return moments;
}

at::Tensor merge_rows(const at::Tensor& rows, std::int64_t row_elements) {
  const tiles::OneThread alone;  // vector loops end where the tensor does, not where a thread's part does
  const std::int64_t count = rows.size(1);
  for (std::int64_t stride = 1; stride < count; stride *= 2) {
    const at::Tensor left = rows.slice(1, 0, count - stride, 2 * stride);
    const at::Tensor right = rows.slice(1, stride, count, 2 * stride);
    const at::Tensor right_rows =
        (count - at::arange(stride, count, 2 * stride, rows.options())).clamp_max_(stride).unsqueeze(1);
    const at::Tensor share = right_rows / (right_rows + stride);  // [n, 1]
    const at::Tensor delta = right.select(-1, 0) - left.select(-1, 0);
    left.select(-1, 0).add_(delta * share);
    left.select(-1, 1)
        .add_(right.select(-1, 1))
        .add_(delta.square() * (share * static_cast<double>(stride * row_elements)));
  }
  at::Tensor whole = rows.select(1, 0).clone();
  whole.select(-1, 1).div_(static_cast<double>(count * row_elements));
  return whole;
}

void normalise(const at::Tensor& x, const at::Tensor& whole, const GroupNorm& layer, bool silu,
               const at::Tensor& out) {
  const auto by_group = [&](const at::Tensor& t) { return t.to(at::kFloat).view({layer.groups, -1, 1}); };
  const at::Tensor mean = whole.select(-1, 0), variance = whole.select(-1, 1) + layer.eps;
  const at::Tensor scale = variance.sqrt() / variance;  // NaN, not 0, of infinity: overflow stays visible
  const at::Tensor weight = by_group(layer.weight), bias = by_group(layer.bias);
  tiles::for_each(x.size(0) * x.size(2), [&](std::int64_t index) {
    const std::int64_t picture = index / x.size(2), row = index % x.size(2);
    const at::Tensor values = shifted_row(x, layer.shift, picture, row);
    const at::Tensor y = (values.view({layer.groups, -1, values.size(1)}) - by_group(mean[picture])) *
                             (by_group(scale[picture]) * weight) +
                         bias;
    out[picture].select(1, row).copy_((silu ? at::silu(y) : y).view(values.sizes()));
  });
}

}  // namespace reference

GroupNorm read_group_norm(const Weights& weights, const std::string& name, std::int64_t groups, double eps) {
  return {weights.get(name + ".weight"), weights.get(name + ".bias"), groups, eps};
}

at::Tensor row_moments(const at::Tensor& x, const GroupNorm& layer) {
  return x.is_cuda() ? fused::row_moments(x.contiguous(at::MemoryFormat::ChannelsLast), layer)
                     : reference::row_moments(x, layer);
}

at::Tensor merge_rows(const at::Tensor& rows, std::int64_t row_elements) {
  return rows.is_cuda() ? fused::merge_rows(rows, row_elements) : reference::merge_rows(rows, row_elements);
}

void normalise(const at::Tensor& x, const at::Tensor& whole, const GroupNorm& layer, bool silu,
               const at::Tensor& padded, std::int64_t margin) {
  if (x.is_cuda()) {
    fused::normalise(x.contiguous(at::MemoryFormat::ChannelsLast), whole, layer, silu, padded, margin);
    return;
  }
  reference::normalise(x, whole, layer, silu, padded.narrow(2, margin, x.size(2)));
  if (margin > 0) zero_margin(padded, margin);
}

void group_norm(const at::Tensor& x, const GroupNorm& layer, bool silu, const at::Tensor& padded,
                std::int64_t margin) {
  const at::Tensor whole = merge_rows(row_moments(x, layer), x.size(1) / layer.groups * x.size(3));
  normalise(x, whole, layer, silu, padded, margin);
}

void zero_margin(const at::Tensor& padded, std::int64_t margin) {
  const std::int64_t rows = padded.size(2);
  if (margin == 1) {  // first and last by one fill
    padded.slice(2, 0, rows, rows - 1).zero_();
    return;
  }
  padded.narrow(2, 0, margin).zero_();
  padded.narrow(2, rows - margin, margin).zero_();
}

}  // namespace xdit::nn
