#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/registry.h"
#include "parallel/plan.h"

namespace xdit::pipeline {

/// The noise of one picture: what diffusers draws for its seed with a CPU generator. Each draw goes on where
/// the one before ended.
class PictureNoise {
 public:
  PictureNoise(std::uint64_t seed, std::int64_t channels, std::int64_t rows, std::int64_t columns);
  /// [C, h, w] on the CPU.
  [[nodiscard]] at::Tensor draw(at::ScalarType dtype);

 private:
  at::Generator generator_;
  std::array<std::int64_t, 3> shape_;
};

/// [3, H, W] around -1..1 -> float32 in 0..1 on the CPU. Error(kModel) for NaN, infinity or a constant
/// picture.
[[nodiscard]] at::Tensor finished_picture(const at::Tensor& decoded);

/// [3, H, W] in 0..1 -> RGB bytes [H, W, 3].
[[nodiscard]] std::vector<std::uint8_t> to_rgb(const at::Tensor& picture);

/// What a picture's metadata tells of a plan that is not exact; else nothing, since the bytes are the same.
[[nodiscard]] std::map<std::string, std::string> recorded_grid(const parallel::Plan& plan);

}  // namespace xdit::pipeline
