#include "nn/convolution.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "nn/fused.h"
#include "nn/linear.h"
#include "nn/tiles.h"

namespace xdit::nn {
namespace {

bool has(const std::string& name, const char* knob) {
  return (name + "_").find(knob) != std::string::npos;
}

// Of cuDNN 9's plans for Hopper these give a row the same bits in every cut of a picture and beside other
// pictures (tests/nn/decoder_probe_test.cpp looks for them): engine 41 adds a bias, engine 62 does not. Of
// those whose result is wider than their factors, 52 and 71 do (tests/nn/convolution_test.cpp).
bool is_exact(const std::string& name, bool wider_result) {
  if (wider_result) return name == "eng52" || name == "eng71";
  return (name.starts_with("eng41_") || name.starts_with("eng62_")) && has(name, "_k25=1_");
}

// Those of one engine give the same bits, whatever their tiles.
bool is_of_any_tile(const std::string& name) {
  return is_exact(name, /*wider_result=*/false) && has(name, "_k13=1_");
}
bool have_same_bits(const std::string& a, const std::string& b) {
  return is_of_any_tile(a) && is_of_any_tile(b) && a.substr(0, a.find('_')) == b.substr(0, b.find('_'));
}

// These plans want channels in groups of 8: zeros fill the last one up.
constexpr std::int64_t kChannels = 8;
constexpr std::uintptr_t kAligned = 16;  // bytes, of every operand

at::Tensor aligned_bias(const at::Tensor& bias) {
  if (!bias.defined()) return bias;
  return reinterpret_cast<std::uintptr_t>(bias.const_data_ptr()) % kAligned == 0 ? bias : bias.clone();
}

std::int64_t missing_outputs(std::int64_t outputs) {
  return (kChannels - outputs % kChannels) % kChannels;
}

Convolution with_full_groups(const Convolution& layer) {
  const std::int64_t missing = missing_outputs(layer.weight.size(0));
  if (missing == 0)
    return {layer.weight.contiguous(at::MemoryFormat::ChannelsLast), layer.bias, layer.stride};
  return {at::constant_pad_nd(layer.weight, {0, 0, 0, 0, 0, 0, 0, missing})
              .contiguous(at::MemoryFormat::ChannelsLast),
          layer.bias.defined() ? at::constant_pad_nd(layer.bias, {0, missing}) : layer.bias, layer.stride};
}

cudnn::Shape for_pictures_of(at::ScalarType type, cudnn::Shape shape) {
  shape.type = type == at::kFloat ? at::kHalf : type;
  shape.result = type;
  return shape;
}

// Factors in float32 that may be rounded to 11 bits, as float16: x is scaled down and weights up, so that x
// may reach 2 million.
constexpr double kScale = 32;
at::Tensor in_half(const at::Tensor& x, double scale) {
  at::Tensor half = at::empty_like(x, x.options().dtype(at::kHalf));
  at::mul_out(half, x, at::scalar_tensor(scale));
  return half;
}

// Of a kernel of one pixel, on a GPU.
at::Tensor pixel_by_pixel(const at::Tensor& x, const Convolution& layer, bool tf32) {
  const at::Tensor pixels = x.permute({0, 2, 3, 1});
  const at::Tensor y = fused::linear({pixels.reshape({-1, x.size(1)})}, {layer.weight.flatten(1)}, layer.bias,
                                     /*gelu_tanh=*/false, x.scalar_type(), tf32);
  return y.view({x.size(0), x.size(2), x.size(3), -1}).permute({0, 3, 1, 2});
}

std::int64_t output_rows(const at::Tensor& x, const Convolution& layer) {
  return (x.size(2) - layer.weight.size(2)) / layer.stride + 1;
}
std::int64_t output_columns(const at::Tensor& x, const Convolution& layer) {
  return (x.size(3) - 1) / layer.stride + 1;
}

// Of the largest tensor, for which plans of wider results have been seen to be exact.
constexpr std::int64_t kProvedBytes = std::int64_t{1} << 31U;
std::int64_t bytes_of_square(const cudnn::Shape& shape) {
  return shape.columns * shape.columns * std::max(shape.inputs, shape.outputs) *
         static_cast<std::int64_t>(c10::elementSize(shape.result));
}

}  // namespace

Convolution read_convolution(const Weights& weights, const std::string& name, std::int64_t stride) {
  // cuDNN's half-precision kernels work on channels-last; elsewhere the layout stays.
  const at::Tensor weight = weights.get(name + ".weight");
  const bool once = weight.is_cuda() && weights.stays(name + ".weight");  // else where it is used
  return {once ? weight.contiguous(at::MemoryFormat::ChannelsLast) : weight, weights.get(name + ".bias"),
          stride};
}

const std::string& Convolutions::Plans::choose(const cudnn::Shape& shape) {
  const auto [found, fresh] = chosen.try_emplace(shape);
  if (!fresh) return found->second;
  if (shape.wider() && bytes_of_square(shape) >= kProvedBytes) return found->second;
  const cudnn::Extent square{.rows = shape.output_columns()}, lowest{.rows = 1};  // stand for all
  const std::vector<std::string> names = cudnn::plan_names(shape, square);
  for (const bool any_tile : {true, false})
    for (const std::string& name : names) {
      if (any_tile ? shape.wider() || !is_of_any_tile(name) : !is_exact(name, shape.wider())) continue;
      std::unique_ptr<cudnn::Plan> plan = cudnn::Plan::build(shape, square, name);
      if (plan == nullptr) continue;
      const bool slow = shape.wider();  // to build, 40 ms: the square has to do
      if (!slow && cudnn::Plan::build(shape, lowest, name) == nullptr) continue;
      built[{shape, square}] = std::move(plan);
      return found->second = name;
    }
  return found->second;
}

// What cuDNN lists first for this extent is often slower than what it lists first for one picture.
std::unique_ptr<cudnn::Plan> Convolutions::plan_of(const cudnn::Shape& shape, const cudnn::Extent& extent,
                                                   const std::string& name,
                                                   const cudnn::Arguments& arguments) {
  std::string why;
  std::unique_ptr<cudnn::Plan> plan = cudnn::Plan::build(shape, extent, name, &why);
  if (!plan) throw Error(ExitCode::kInternal, name + " does not take every extent: " + why, "cudnn");
  if (shape.wider()) return plan;
  for (const std::string& other : cudnn::plan_names(shape, extent)) {
    if (!have_same_bits(other, name)) continue;
    if (other == name) break;
    std::unique_ptr<cudnn::Plan> rival = cudnn::Plan::build(shape, extent, other);
    if (rival == nullptr) continue;
    return cudnn::is_faster(*rival, *plan, arguments) ? std::move(rival) : std::move(plan);
  }
  return plan;
}

void Convolutions::take_expected() {
  if (!expected_.valid()) return;
  try {
    Plans plans = expected_.get();
    plans_.chosen.merge(plans.chosen);
    plans_.built.merge(plans.built);
  } catch (const c10::Error&) {  // they are built where they are used, then
  }
}

Convolutions::Plans Convolutions::build(const std::vector<std::pair<cudnn::Shape, cudnn::Extent>>& wider) {
  Plans plans;
  for (const auto& [shape, extent] : wider)
    if (const std::string& name = plans.choose(shape); !name.empty())
      if (std::unique_ptr<cudnn::Plan>& plan = plans.built[{shape, extent}]; !plan)
        plan = cudnn::Plan::build(shape, extent, name);
  return plans;
}

void Convolutions::expect(const std::vector<ExpectedConvolution>& convolutions, at::Device device) {
  if (!tf32_ || !device.is_cuda() || expected_.valid()) return;
  std::vector<std::pair<cudnn::Shape, cudnn::Extent>> wider;
  for (const auto& [inputs, outputs, rows, columns] : convolutions) {
    const cudnn::Shape shape = for_pictures_of(at::kFloat, {.inputs = inputs,
                                                            .outputs = outputs + missing_outputs(outputs),
                                                            .kernel = 3,
                                                            .columns = columns,
                                                            .epilogue = cudnn::Epilogue::kBias});
    if (!plans_.chosen.contains(shape)) wider.emplace_back(shape, cudnn::Extent{.rows = rows});
  }
  if (wider.empty()) return;
  expected_ = std::async(std::launch::async, [wider = std::move(wider), device] {
    const c10::DeviceGuard guard(device);
    return build(wider);
  });
}

at::Tensor Convolutions::by_plan(const at::Tensor& x, const Convolution& asked) {
  const Convolution layer = with_full_groups(asked);
  const cudnn::Shape shape = for_pictures_of(
      x.scalar_type(), {.inputs = x.size(1),
                        .outputs = layer.weight.size(0),
                        .kernel = layer.weight.size(2),
                        .columns = x.size(3),
                        .stride = layer.stride,
                        .epilogue = layer.bias.defined() ? cudnn::Epilogue::kBias : cudnn::Epilogue::kNone});
  const bool halves = shape.wider();
  take_expected();
  const std::string& name = plans_.choose(shape);
  if (name.empty()) return {};
  const cudnn::Extent extent{.rows = output_rows(x, layer), .pictures = x.size(0)};
  const at::Tensor y = at::empty({x.size(0), shape.outputs, extent.rows, shape.output_columns()},
                                 x.options().memory_format(at::MemoryFormat::ChannelsLast));
  const at::Tensor factor = x.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor weight = halves ? in_half(layer.weight, kScale) : layer.weight;
  const cudnn::Arguments arguments{.y = y,
                                   .x = halves ? in_half(factor, 1 / kScale) : factor,
                                   .weight = weight,
                                   .bias = aligned_bias(layer.bias)};
  std::unique_ptr<cudnn::Plan>& plan = plans_.built[{shape, extent}];
  if (!plan) plan = plan_of(shape, extent, name, arguments);
  (*plan)(arguments);
  return y.narrow(1, 0, asked.weight.size(0));
}

at::Tensor Convolutions::operator()(const at::Tensor& x, const Convolution& layer) {
  if (output_rows(x, layer) == 0)
    return at::empty({x.size(0), layer.weight.size(0), 0, output_columns(x, layer)}, x.options());
  const bool product = layer.weight.size(2) == 1 && layer.stride == 1;
  if (x.is_cuda() && !product &&
      (x.scalar_type() != at::kFloat || tf32_))  // of float32 cuDNN has no exact one
    if (at::Tensor y = by_plan(x, layer); y.defined()) return y;
  if (x.is_cpu()) return tiles::convolution(x, layer.weight, layer.bias, 0, layer.stride);
  if (product) return pixel_by_pixel(x, layer, tf32_);
  return convolution_by_windows(x, layer, tf32_);
}

void Convolutions::onto(const at::Tensor& y, const at::Tensor& x, const Convolution& layer) {
  const auto pixels = [](const at::Tensor& picture) { return picture.permute({0, 2, 3, 1}); };
  if (!x.is_cuda()) {
    y.add_((*this)(x, layer));
    return;
  }
  fused::linear_onto(pixels(y).view({-1, y.size(1)}), {pixels(x).reshape({-1, x.size(1)})},
                     {layer.weight.flatten(1)}, layer.bias, tf32_);
}

at::Tensor convolution_by_windows(const at::Tensor& x, const Convolution& layer, bool tf32) {
  constexpr std::int64_t kMostBytes = std::int64_t{1} << 28U;  // of windows at once
  const std::int64_t kernel = layer.weight.size(2), side = kernel / 2;
  const std::int64_t rows = output_rows(x, layer), columns = output_columns(x, layer), channels = x.size(1);
  const at::Tensor padded = at::constant_pad_nd(x.permute({0, 2, 3, 1}), {0, 0, side, side}).contiguous();
  const at::Tensor matrix = layer.weight.permute({0, 2, 3, 1}).flatten(1).contiguous();  // [O, K K I]
  const std::int64_t width = kernel * kernel * channels;
  const std::int64_t row_bytes = x.size(0) * columns * width * static_cast<std::int64_t>(x.element_size());
  const std::int64_t at_once = std::max<std::int64_t>(1, kMostBytes / row_bytes);
  const at::Tensor y = at::empty({x.size(0), rows, columns, layer.weight.size(0)}, x.options());
  const std::int64_t line = padded.stride(1);
  for (std::int64_t first = 0; first < rows; first += at_once) {
    const std::int64_t count = std::min(at_once, rows - first);
    const at::Tensor windows =
        padded.as_strided({x.size(0), count, columns, kernel, kernel, channels},
                          {padded.stride(0), layer.stride * line, layer.stride * channels, line, channels, 1},
                          padded.storage_offset() + first * layer.stride * line);
    const at::Tensor factors = windows.reshape({-1, width});
    const at::Tensor product =
        x.is_cuda() ? fused::linear(factors, matrix, layer.bias, /*gelu_tanh=*/false, x.scalar_type(), tf32)
                    : linear(factors, matrix, layer.bias);
    y.narrow(1, first, count).copy_(product.view({x.size(0), count, columns, layer.weight.size(0)}));
  }
  return y.permute({0, 3, 1, 2});
}

}  // namespace xdit::nn
