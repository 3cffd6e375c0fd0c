// Convolutions whose rows carry their halos: Torch's, and the same bits in every cut. On a GPU with
// XDIT_TEST_CUDA set; XDIT_TEST_PRINT then shows the decoder's shapes beside at::conv2d.
#include "nn/convolution.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <span>

#include "tests/catch.h"
#include "tests/nn/convolution_shapes.h"
#include "tests/nn/device.h"
#include "tests/nn/timing.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

at::Tensor channels_last(at::IntArrayRef shape, at::ScalarType type, double scale = 1) {
  return (at::randn(shape) * scale).to(test::device(), type).contiguous(at::MemoryFormat::ChannelsLast);
}

struct Input {
  at::Tensor x;  // rows with their halos
  Convolution layer;
};

Input input_of(const test::ConvolutionShape& s, at::ScalarType type, std::int64_t batch = 1) {
  const double scale = 1 / std::sqrt(static_cast<double>(s.inputs * s.kernel * s.kernel));
  return {channels_last({batch, s.inputs, s.input_rows(s.rows), s.columns}, type),
          {channels_last({s.outputs, s.inputs, s.kernel, s.kernel}, type, scale),
           at::randn({s.outputs}).to(test::device(), type), s.stride}};
}

// Every cut's rows have the bits of the whole.
template <class F>
void check_cuts(F&& convolution, const Input& in, const at::Tensor& whole) {
  const std::int64_t rows = whole.size(2), kernel = in.layer.weight.size(2), stride = in.layer.stride;
  for (const std::int64_t count : test::cut_heights(rows))
    for (const std::int64_t first : {std::int64_t{0}, (rows - count) / 3, rows - count}) {
      CAPTURE(count, first);
      const at::Tensor part = in.x.narrow(2, stride * first, stride * (count - 1) + kernel)
                                  .contiguous(at::MemoryFormat::ChannelsLast);
      CHECK(at::equal(convolution(part, in.layer), whole.narrow(2, first, count)));
    }
}

at::Tensor by_windows(const at::Tensor& x, const Convolution& layer) {
  return convolution_by_windows(x, layer);
}

TEST_CASE("convolutions are Torch's, and rows keep their bits in every cut") {
  at::manual_seed(1);
  at::globalContext().setAllowTF32CuDNN(false);
  Convolutions convolutions;
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const test::ConvolutionShape& s : {test::ConvolutionShape{64, 128, 3, 45, 37},
                                            {128, 64, 3, 19, 48},
                                            {4, 9, 3, 23, 11},
                                            {16, 8, 1, 21, 5},
                                            {64, 3, 3, 17, 16},
                                            {32, 24, 3, 13, 22, 2},
                                            {8, 16, 3, 6, 9, 2},
                                            {16, 8, 1, 7, 10, 2}})
      for (const std::int64_t batch : {1, 2}) {
        CAPTURE(at::toString(type), s.inputs, s.outputs, s.kernel, s.rows, s.columns, s.stride, batch);
        const Input in = input_of(s, type, batch);
        const at::Tensor whole = convolutions(in.x, in.layer);
        const at::Tensor expected =
            at::conv2d(in.x.to(at::kCPU, at::kDouble), in.layer.weight.to(at::kCPU, at::kDouble),
                       in.layer.bias.to(at::kCPU, at::kDouble), s.stride, at::IntArrayRef({0, s.kernel / 2}));
        const double rounding = type == at::kFloat ? 1e-6 : type == at::kHalf ? 5e-4 : 4e-3;
        CHECK(test::relative_error(whole, expected) < rounding);
        check_cuts(convolutions, in, whole);
        const at::Tensor windows = by_windows(in.x, in.layer);
        CHECK(test::relative_error(windows, expected) < rounding);
        check_cuts(by_windows, in, windows);
        const at::Tensor off =
            at::cat({in.layer.bias.narrow(0, 0, 1), in.layer.bias}).narrow(0, 1, s.outputs);
        CHECK(at::equal(convolutions(in.x, {in.layer.weight, off, s.stride}), whole));
        for (std::int64_t i = 0; i < batch; ++i)
          CHECK(at::equal(convolutions(in.x.narrow(0, i, 1), in.layer), whole.narrow(0, i, 1)));
        const at::Tensor bare = convolutions(in.x, {in.layer.weight, /*bias=*/{}, s.stride});
        CHECK(test::relative_error(
                  bare, expected - in.layer.bias.to(at::kCPU, at::kDouble).view({-1, 1, 1})) < 2 * rounding);
      }
}

void check_on_gpu(std::span<const test::ConvolutionShape> shapes, std::int64_t batch) {
  if (test::device().is_cpu()) return;
  at::manual_seed(2);
  at::globalContext().setDeterministicCuDNN(true);
  Convolutions convolutions(/*tf32=*/true);
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat})
    for (const test::ConvolutionShape& s : shapes) {
      if (type == at::kFloat && batch > 1) continue;  // only a decoder rounds
      CAPTURE(at::toString(type), s.inputs, s.outputs, s.kernel, s.rows, s.columns, s.stride);
      const Input in = input_of(s, type, batch);
      const auto torch = [&] {
        return at::conv2d(in.x, in.layer.weight, in.layer.bias, s.stride, at::IntArrayRef({0, s.kernel / 2}));
      };
      const at::Tensor whole = convolutions(in.x, in.layer);
      CHECK(test::relative_error(whole, torch()) <
            2 * test::tolerance(type == at::kFloat ? at::kHalf : type));
      check_cuts(convolutions, in, whole);
      if (type != at::kFloat) check_cuts(by_windows, in, by_windows(in.x, in.layer));  // float32's take long
      for (std::int64_t i = 0; i < batch; ++i)
        CHECK(at::equal(convolutions(in.x.narrow(0, i, 1), in.layer), whole.narrow(0, i, 1)));
      const Input bare{in.x, {in.layer.weight, /*bias=*/{}, s.stride}};
      if (batch > 1) check_cuts(convolutions, bare, convolutions(bare.x, bare.layer));
      if (std::getenv("XDIT_TEST_PRINT") == nullptr) continue;
      const double ours = test::microseconds([&] { static_cast<void>(convolutions(in.x, in.layer)); });
      const double theirs = test::microseconds([&] { static_cast<void>(torch()); });
      std::printf(
          "convolution %ld -> %ld, k %ld, stride %ld, %ld x %ld %s: %.1f us, %s; at::conv2d %.1f us\n",
          s.inputs, s.outputs, s.kernel, s.stride, s.rows, s.columns, at::toString(type), ours,
          convolutions.by_plan(in.x, in.layer).defined() ? "by a plan" : "by a product", theirs);
    }
}

TEST_CASE("the decoder's convolutions keep a row's bits in every cut") {
  check_on_gpu(test::kVaeShapes, 1);
}

TEST_CASE("a UNet's convolutions keep a row's bits in every cut") {
  check_on_gpu(test::kUnetShapes, 2);
}

}  // namespace
}  // namespace xdit::nn
