#include "nn/spatial.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace xdit::nn {

at::Tensor Spatial::moments(const at::Tensor& x, const GroupNorm& layer) const {
  return whole_moments(row_moments(x, layer), x.size(1) / layer.groups * x.size(3));
}

// The picture is written straight to its place between the halo rows.
template <class F>
at::Tensor Spatial::padded(const at::Tensor& x, std::int64_t halo, F&& write) const {
  at::Tensor all = at::empty({x.size(0), x.size(1), x.size(2) + 2 * halo, x.size(3)},
                             x.options().memory_format(at::MemoryFormat::ChannelsLast));
  write(all.narrow(2, halo, x.size(2)));
  if (halo > 0) fill_halo(all, halo);
  return all;
}

at::Tensor Spatial::convolve(const at::Tensor& x, const Convolution& layer) const {
  XDIT_ASSERT(layer.stride == 1);
  const std::int64_t halo = layer.weight.size(2) / 2;
  if (halo == 0) return (*convolutions_)(x, layer);
  return (*convolutions_)(padded(x, halo, [&](const at::Tensor& to) { to.copy_(x); }), layer);
}

at::Tensor Spatial::convolve_normed(const at::Tensor& x, const GroupNorm& norm,
                                    const Convolution& layer) const {
  XDIT_ASSERT(layer.stride == 1);
  const at::Tensor whole = moments(x, norm);
  const auto write = [&](const at::Tensor& to) { normalise(x, whole, norm, /*silu=*/true, to); };
  return (*convolutions_)(padded(x, layer.weight.size(2) / 2, write), layer);
}

// A kernel's centre is at each even row.
at::Tensor Spatial::convolve_halved(const at::Tensor& x, const Convolution& layer) const {
  const std::int64_t kernel = layer.weight.size(2);
  XDIT_ASSERT(layer.stride == 2 && kernel % 2 == 1);
  const RowPlace of = place(x.size(2));
  const std::int64_t rows = (of.first + of.count + 1) / 2 - (of.first + 1) / 2;  // the even ones
  const at::Tensor all = padded(x, kernel / 2, [&](const at::Tensor& to) { to.copy_(x); });
  if (rows == 0) return at::empty({x.size(0), layer.weight.size(0), 0, (x.size(3) + 1) / 2}, x.options());
  return (*convolutions_)(all.narrow(2, of.first % 2, 2 * (rows - 1) + kernel), layer);
}

at::Tensor Spatial::convolve_doubled(const at::Tensor& x, const Convolution& layer, const Spatial& doubled,
                                     std::int64_t rows, std::int64_t columns) const {
  XDIT_ASSERT(layer.stride == 1 && layer.weight.size(2) == 3);
  // Halo rows of the small picture hold those of the large one.
  const at::Tensor small = padded(x, 1, [&](const at::Tensor& to) { to.copy_(x); });
  const RowPlace to = doubled.place(rows);
  const std::int64_t first = to.first + 1 - 2 * place(x.size(2)).first;
  const at::Tensor large = at::upsample_nearest2d(small, {2 * small.size(2), columns}, 2.0, 2.0)
                               .narrow(2, first, rows + 2)
                               .contiguous(at::MemoryFormat::ChannelsLast);
  if (to.first + rows == to.all) large.narrow(2, rows + 1, 1).zero_();  // of an odd number of rows
  return (*doubled.convolutions_)(large, layer);
}

at::Tensor Spatial::group_norm(const at::Tensor& x, const GroupNorm& layer) const {
  at::Tensor y = at::empty_like(x, x.options().memory_format(at::MemoryFormat::ChannelsLast));
  normalise(x, moments(x, layer), layer, /*silu=*/false, y);
  return y;
}

at::Tensor LocalSpatial::gather_tokens(const at::Tensor& rows) const {
  return rows.flatten(1, 2);
}

void LocalSpatial::fill_halo(const at::Tensor& padded, std::int64_t halo) const {
  const std::int64_t rows = padded.size(2);
  if (halo == 1) {  // first and last by one fill
    padded.slice(2, 0, rows, rows - 1).zero_();
    return;
  }
  padded.narrow(2, 0, halo).zero_();
  padded.narrow(2, rows - halo, halo).zero_();
}

}  // namespace xdit::nn
