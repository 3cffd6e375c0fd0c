#include "nn/spatial.h"

#include <ATen/ATen.h>

#include <optional>

#include "nn/tiles.h"

namespace xdit::nn {

at::Tensor LocalSpatial::convolve(const at::Tensor& x, const Convolution& layer) const {
  const std::int64_t padding = layer.weight.size(2) / 2;
  if (x.is_cpu()) return tiles::convolution(x, layer.weight, layer.bias, padding);
  return at::conv2d(x, layer.weight, layer.bias, 1, padding);
}

at::Tensor LocalSpatial::group_norm(const at::Tensor& x, const GroupNorm& layer, bool silu) const {
  std::optional<tiles::OneThread> alone;
  if (x.is_cpu()) alone.emplace();
  at::Tensor y = at::group_norm(x, layer.groups, layer.weight, layer.bias, layer.eps);
  return silu ? at::silu_(y) : y;
}

}  // namespace xdit::nn
