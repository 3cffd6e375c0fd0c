#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

#include "models/registry.h"

namespace xdit::parallel {

using Tensors = std::map<std::string, at::Tensor>;

/// Reads a network's parameters from its files to `device`, cast to `dtype`, with `threads` threads. Bytes
/// whose dtype is already `dtype` go to their place at once; others through buffers of at most 1 GiB on the
/// device. Error(kModel) for a file that is shorter than it was. `bytes_read` counts up.
[[nodiscard]] Tensors load(const models::Network& network, const weights::ModelFiles& files,
                           at::ScalarType dtype, at::Device device, std::int64_t threads,
                           std::uint64_t& bytes_read);

/// Random parameters of the same shapes, the same for one shape and name in every run on one kind of device:
/// matrices keep activations near unit variance, norm scales are near one, so that pictures are neither
/// constant nor NaN.
[[nodiscard]] Tensors draw(const models::Network& network, at::ScalarType dtype, at::Device device);

}  // namespace xdit::parallel
