#include "nn/spatial.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "nn/fused.h"

namespace xdit::nn {
namespace {

at::Tensor empty_padded(const at::Tensor& x, std::int64_t halo) {
  return at::empty({x.size(0), x.size(1), x.size(2) + 2 * halo, x.size(3)},
                   x.options().memory_format(at::MemoryFormat::ChannelsLast));
}

}  // namespace

void Spatial::normalise_padded(const at::Tensor& x, const GroupNorm& layer, bool silu,
                               const at::Tensor& padded, std::int64_t halo) const {
  const at::Tensor whole = whole_moments(row_moments(x, layer), x.size(1) / layer.groups * x.size(3));
  normalise(x, whole, layer, silu, padded.narrow(2, halo, x.size(2)));
  if (halo > 0) fill_halo(padded, halo);
}

at::Tensor Spatial::padded(const at::Tensor& x, std::int64_t halo) const {
  at::Tensor all = empty_padded(x, halo);
  all.narrow(2, halo, x.size(2)).copy_(x);
  if (halo > 0) fill_halo(all, halo);
  return all;
}

at::Tensor Spatial::window(const at::Tensor& x, const Window& of) const {
  const RowPlace own = place(x.size(2));
  const at::Tensor all = padded(x, of.halo);
  const std::int64_t rows = of.scale * all.size(2), before = of.scale * (own.first - of.halo);
  const std::int64_t first = of.first - before, end = std::min(of.end - before, rows);
  XDIT_ASSERT(0 <= first && first + of.rows <= rows);
  if (of.scale == 1) return all.narrow(2, first, of.rows);
  if (all.is_cuda())
    return fused::window(
        all, {.scale = of.scale, .first = first, .rows = of.rows, .columns = of.columns, .end = end});
  at::Tensor large = at::upsample_nearest2d(all, {rows, of.columns}, 2.0, 2.0)
                         .narrow(2, first, of.rows)
                         .contiguous(at::MemoryFormat::ChannelsLast);
  if (first + of.rows > end) large.narrow(2, end - first, first + of.rows - end).zero_();
  return large;
}

at::Tensor Spatial::convolve(const at::Tensor& x, const Convolution& layer) const {
  XDIT_ASSERT(layer.stride == 1);
  const std::int64_t halo = layer.weight.size(2) / 2;
  if (halo == 0) return (*convolutions_)(x, layer);
  const RowPlace of = place(x.size(2));
  return (*convolutions_)(window(x, {.first = of.first - halo,
                                     .rows = of.count + 2 * halo,
                                     .columns = x.size(3),
                                     .end = of.all,
                                     .halo = halo}),
                          layer);
}

void Spatial::add_shortcut(const at::Tensor& sum, const at::Tensor& x,
                           const std::optional<Convolution>& layer) const {
  if (!layer) {
    sum.add_(x);
    return;
  }
  XDIT_ASSERT(layer->stride == 1 && layer->weight.size(2) == 1);
  convolutions_->onto(sum, x, *layer);
}

at::Tensor Spatial::convolve_normed(const at::Tensor& x, const GroupNorm& norm,
                                    const Convolution& layer) const {
  XDIT_ASSERT(layer.stride == 1);
  const std::int64_t halo = layer.weight.size(2) / 2;
  const at::Tensor normed = empty_padded(x, halo);
  normalise_padded(x, norm, /*silu=*/true, normed, halo);
  return (*convolutions_)(normed, layer);
}

// A kernel's centre is at each even row.
at::Tensor Spatial::convolve_halved(const at::Tensor& x, const Convolution& layer) const {
  const std::int64_t kernel = layer.weight.size(2);
  XDIT_ASSERT(layer.stride == 2 && kernel % 2 == 1 && kernel > 1);
  const RowPlace of = place(x.size(2));
  const std::int64_t rows = (of.first + of.count + 1) / 2 - (of.first + 1) / 2;  // the even ones
  const at::Tensor even = window(x, {.first = of.first + of.first % 2 - kernel / 2,
                                     .rows = 2 * (rows - 1) + kernel,
                                     .columns = x.size(3),
                                     .end = of.all,
                                     .halo = kernel / 2});
  if (rows == 0) return at::empty({x.size(0), layer.weight.size(0), 0, (x.size(3) + 1) / 2}, x.options());
  return (*convolutions_)(even, layer);
}

at::Tensor Spatial::convolve_doubled(const at::Tensor& x, const Convolution& layer, const Spatial& doubled,
                                     std::int64_t rows, std::int64_t columns) const {
  XDIT_ASSERT(layer.stride == 1 && layer.weight.size(2) == 3);
  // One halo row of the small picture holds the large one's.
  const RowPlace to = doubled.place(rows);
  const Window around{
      .scale = 2, .first = to.first - 1, .rows = rows + 2, .columns = columns, .end = to.all, .halo = 1};
  return (*doubled.convolutions_)(window(x, around), layer);
}

at::Tensor Spatial::group_norm(const at::Tensor& x, const GroupNorm& layer) const {
  at::Tensor y = empty_padded(x, 0);
  normalise_padded(x, layer, /*silu=*/false, y, 0);
  return y;
}

at::Tensor LocalSpatial::gather_tokens(const at::Tensor& rows) const {
  return rows.flatten(1, 2);
}

void LocalSpatial::fill_halo(const at::Tensor& padded, std::int64_t halo) const {
  zero_margin(padded, halo);
}

void LocalSpatial::normalise_padded(const at::Tensor& x, const GroupNorm& layer, bool silu,
                                    const at::Tensor& padded, std::int64_t halo) const {
  nn::group_norm(x, layer, silu, padded, halo);
}

at::Tensor LocalSpatial::window(const at::Tensor& x, const Window& of) const {
  return x.is_cuda() ? fused::window(x.contiguous(at::MemoryFormat::ChannelsLast), of)
                     : Spatial::window(x, of);
}

}  // namespace xdit::nn
