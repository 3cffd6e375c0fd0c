#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/registry.h"

namespace xdit::pipeline {

/// The noise of one picture, [C, h, w] on the CPU: what diffusers draws for `seed` with a CPU generator in
/// `dtype`.
[[nodiscard]] at::Tensor draw_noise(std::uint64_t seed, std::int64_t channels, std::int64_t rows,
                                    std::int64_t columns, at::ScalarType dtype);

/// [3, H, W] around -1..1 -> float32 in 0..1 on the CPU. Error(kModel) for NaN, infinity or a constant
/// picture.
[[nodiscard]] at::Tensor finished_picture(const at::Tensor& decoded);

/// [3, H, W] in 0..1 -> RGB bytes [H, W, 3].
[[nodiscard]] std::vector<std::uint8_t> to_rgb(const at::Tensor& picture);

}  // namespace xdit::pipeline
