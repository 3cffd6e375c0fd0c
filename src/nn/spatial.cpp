#include "nn/spatial.h"

#include <ATen/ATen.h>

namespace xdit::nn {

at::Tensor Spatial::moments(const at::Tensor& x, std::int64_t groups) const {
  return merge_rows(gather_moments(row_moments(x, groups)), x.size(1) / groups * x.size(3));
}

// The input is written straight to its place between the halo rows.
template <class F>
at::Tensor Spatial::convolve_written(const at::Tensor& like, std::int64_t scale, const Convolution& layer,
                                     F&& write) const {
  const std::int64_t halo = layer.weight.size(2) / 2;
  const std::int64_t rows = scale * like.size(2);
  const at::Tensor padded = at::empty({like.size(0), like.size(1), rows + 2 * halo, scale * like.size(3)},
                                      like.options().memory_format(at::MemoryFormat::ChannelsLast));
  write(padded.narrow(2, halo, rows));
  if (halo > 0) fill_halo(padded, halo);
  return convolution_(padded, layer);
}

at::Tensor Spatial::convolve(const at::Tensor& x, const Convolution& layer) const {
  if (layer.weight.size(2) == 1) return convolution_(x, layer);
  return convolve_written(x, 1, layer, [&](const at::Tensor& to) { to.copy_(x); });
}

at::Tensor Spatial::convolve_normed(const at::Tensor& x, const GroupNorm& norm,
                                    const Convolution& layer) const {
  const at::Tensor whole = moments(x, norm.groups);
  return convolve_written(x, 1, layer,
                          [&](const at::Tensor& to) { normalise(x, whole, norm, /*silu=*/true, to); });
}

at::Tensor Spatial::convolve_doubled(const at::Tensor& x, const Convolution& layer) const {
  return convolve_written(x, 2, layer, [&](at::Tensor to) {
    at::upsample_nearest2d_out(to, x, {to.size(2), to.size(3)});
  });
}

at::Tensor Spatial::group_norm(const at::Tensor& x, const GroupNorm& layer) const {
  at::Tensor y = at::empty_like(x, x.options().memory_format(at::MemoryFormat::ChannelsLast));
  normalise(x, moments(x, layer.groups), layer, /*silu=*/false, y);
  return y;
}

void LocalSpatial::fill_halo(const at::Tensor& padded, std::int64_t halo) const {
  padded.narrow(2, 0, halo).zero_();
  padded.narrow(2, padded.size(2) - halo, halo).zero_();
}

}  // namespace xdit::nn
