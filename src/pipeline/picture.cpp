#include "pipeline/picture.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "core/error.h"

namespace xdit::pipeline {

PictureNoise::PictureNoise(std::uint64_t seed, std::int64_t channels, std::int64_t rows, std::int64_t columns)
    : generator_(at::make_generator<at::CPUGeneratorImpl>(seed)), shape_{channels, rows, columns} {}

at::Tensor PictureNoise::draw(at::ScalarType dtype) {
  return at::randn(shape_, generator_, at::TensorOptions().dtype(dtype));
}

at::Tensor finished_picture(const at::Tensor& decoded) {
  // On the host: each of these lines on a GPU loads a kernel of its own first, which takes longer than it.
  const at::Tensor picture = decoded.cpu().to(at::kFloat);
  const char* fix = "--dtype bf16 or fp32 (float16 overflows in some models), or inspect the model file";
  const auto [least, most] = at::aminmax(picture);  // NaN if one is
  if (!std::isfinite(least.item<float>()) || !std::isfinite(most.item<float>()))
    throw Error(ExitCode::kModel, "the picture holds NaN or infinite values", {}, fix);
  if (least.item<float>() == most.item<float>())
    throw Error(ExitCode::kModel, "the picture is constant", {}, fix);
  return (picture / 2).add_(0.5).clamp_(0, 1);
}

std::vector<std::uint8_t> to_rgb(const at::Tensor& picture) {
  const at::Tensor bytes = (picture * 255).round().to(at::kByte).permute({1, 2, 0}).contiguous();
  const auto* first = bytes.const_data_ptr<std::uint8_t>();
  return {first, first + bytes.numel()};
}

std::map<std::string, std::string> recorded_grid(const parallel::Plan& plan) {
  std::map<std::string, std::string> grid;
  if (plan.grade == config::Allow::kExact) return grid;
  const parallel::Mesh& mesh = plan.mesh;
  for (const auto& [name, degree] : {std::pair{"pipefusion", mesh.pipefusion},
                                     {"pipefusion_warmup", mesh.pipefusion > 1 ? plan.warmup : 1},
                                     {"ring", mesh.ring},
                                     {"tensor", mesh.tensor}})
    if (degree > 1) grid[name] = std::to_string(degree);
  if (plan.displaced) {
    grid["patch"] = "displaced";
    grid["patch_warmup"] = std::to_string(plan.warmup);
    grid["gather"] = std::to_string(mesh.gather);
  }
  return grid;
}

}  // namespace xdit::pipeline
