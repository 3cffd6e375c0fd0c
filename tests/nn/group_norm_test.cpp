// Group norm by rows against Torch in float64, and its law: bits do not depend on which rows are here. On a
// GPU with XDIT_TEST_CUDA set; XDIT_TEST_PRINT then shows its bandwidth.
#include "nn/group_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include "nn/spatial.h"
#include "tests/catch.h"
#include "tests/nn/device.h"
#include "tests/nn/timing.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

struct Shape {
  std::int64_t batch, channels, rows, columns, groups;
};
constexpr std::array<Shape, 11> kShapes{{{1, 128, 33, 65, 32},
                                         {1, 512, 5, 16, 32},
                                         {2, 256, 7, 9, 32},
                                         {1, 320, 12, 13, 32},
                                         {2, 9, 17, 3, 3},
                                         {1, 4, 1, 1, 2},
                                         {1, 1280, 3, 300, 32},
                                         {1, 40, 19, 21, 1},
                                         {1, 8, 257, 3, 4},
                                         {2, 8, 1000, 2, 2},
                                         {1, 6, 2500, 1, 3}}};

at::Tensor picture(const Shape& s, at::ScalarType type, double mean) {
  const at::Tensor x =
      at::randn({s.batch, s.channels, s.rows, s.columns}) * at::rand({1, s.channels, 1, 1}) + mean;
  return x.to(test::device(), type).contiguous(at::MemoryFormat::ChannelsLast);
}

GroupNorm layer_of(const Shape& s, at::ScalarType type, bool shifted = false) {
  const auto drawn = [&](at::IntArrayRef shape) { return at::randn(shape).to(test::device(), type); };
  GroupNorm layer{drawn({s.channels}), drawn({s.channels}), s.groups, 1e-6};
  if (shifted) layer.shift = drawn({s.batch, s.channels + 3}).narrow(1, 3, s.channels);
  return layer;
}

at::Tensor whole_of(const at::Tensor& x, const GroupNorm& layer) {
  return merge_rows(row_moments(x, layer), x.size(1) / layer.groups * x.size(3));
}

at::Tensor normalised(const at::Tensor& x, const at::Tensor& whole, const GroupNorm& layer, bool silu) {
  at::Tensor y = at::empty_like(x);
  normalise(x, whole, layer, silu, y);
  return y;
}

TEST_CASE("group norm is Torch's, far from zero as well") {
  at::manual_seed(1);
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const Shape& s : kShapes)
      for (const auto& [mean, shifted] : {std::pair{0.0, false}, {30.0, false}, {0.0, true}}) {
        CAPTURE(at::toString(type), s.channels, s.rows, s.columns, s.groups, mean, shifted);
        const at::Tensor x = picture(s, type, mean);
        x.select(2, 0).select(2, 0).fill_(mean - 20);  // what a kernel might take for the mean at first
        const GroupNorm layer = layer_of(s, type, shifted);
        const auto exact = [](const at::Tensor& t) { return t.to(at::kCPU, at::kDouble); };
        const at::Tensor sum = shifted ? exact(x) + exact(layer.shift).unsqueeze(2).unsqueeze(3) : exact(x);
        const at::Tensor expected =
            at::group_norm(sum, s.groups, exact(layer.weight), exact(layer.bias), layer.eps);
        const at::Tensor whole = whole_of(x, layer);
        const double rounding = type == at::kFloat ? 5e-7 : type == at::kHalf ? 5e-4 : 4e-3;
        CHECK(test::relative_error(normalised(x, whole, layer, false), expected) <
              rounding * (type == at::kFloat && mean > 0 ? 10 : 1));
        CHECK(test::relative_error(normalised(x, whole, layer, true), at::silu(expected)) <
              rounding * (type == at::kFloat && mean > 0 ? 10 : 2));
        CHECK(test::relative_error(whole, reference::merge_rows(reference::row_moments(x, layer),
                                                                s.channels / s.groups * s.columns)) < 1e-6);
      }
}

TEST_CASE("group norm does not depend on which rows are here, nor on threads") {
  at::manual_seed(2);
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const Shape& s : kShapes) {
      CAPTURE(at::toString(type), s.channels, s.rows, s.columns, s.groups);
      const at::Tensor x = picture(s, type, 1);
      const GroupNorm layer = layer_of(s, type, /*shifted=*/s.rows % 2 == 1);
      at::set_num_threads(2);
      const at::Tensor moments = row_moments(x, layer), whole = whole_of(x, layer);
      const at::Tensor y = normalised(x, whole, layer, true);
      at::set_num_threads(1);
      CHECK(at::equal(whole_of(x, layer), whole));
      for (std::int64_t first = 0, count = 1; first < s.rows; first += count, count = 2 * count + 1) {
        count = std::min(count, s.rows - first);
        CAPTURE(first, count);
        const at::Tensor part = x.narrow(2, first, count);
        CHECK(at::equal(row_moments(part, layer), moments.narrow(1, first, count)));
        CHECK(at::equal(normalised(part, whole, layer, true), y.narrow(2, first, count)));
      }
      at::set_num_threads(2);
    }
}

TEST_CASE("group norm into a picture between halo rows leaves those alone") {
  at::manual_seed(3);
  const Shape s{2, 64, 6, 10, 32};
  const at::Tensor x = picture(s, at::kBFloat16, 0);
  const GroupNorm layer = layer_of(s, at::kBFloat16);
  const at::Tensor padded =
      at::full({2, 64, 8, 10}, 7, x.options()).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor whole = whole_of(x, layer);
  normalise(x, whole, layer, true, padded.narrow(2, 1, 6));
  CHECK(at::equal(padded.narrow(2, 1, 6), normalised(x, whole, layer, true)));
  CHECK(padded.select(2, 0).eq(7).all().item<bool>());
  CHECK(padded.select(2, 7).eq(7).all().item<bool>());
}

TEST_CASE("group norm of whole pictures gives the bits of the one by rows, between rows of zeros") {
  at::manual_seed(4);
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const Shape& s : {Shape{2, 320, 64, 64, 32},
                           {2, 640, 33, 31, 32},
                           {1, 1280, 8, 8, 32},
                           {3, 960, 16, 24, 32},
                           {1, 320, 128, 96, 32},
                           {2, 256, 7, 9, 32},
                           {1, 512, 5, 16, 32},
                           {1, 64, 1, 1, 8},
                           {2, 72, 300, 5, 4},
                           {2, 9, 17, 3, 3}})
      for (const std::int64_t margin : {0, 1, 2}) {
        CAPTURE(at::toString(type), s.batch, s.channels, s.rows, s.columns, s.groups, margin);
        const at::Tensor x = picture(s, type, 1);
        const GroupNorm layer = layer_of(s, type, /*shifted=*/margin == 1);
        const bool silu = margin > 0;
        const at::Tensor all = at::full({s.batch, s.channels, s.rows + 2 * margin, s.columns}, 7, x.options())
                                   .contiguous(at::MemoryFormat::ChannelsLast);
        group_norm(x, layer, silu, all, margin);
        CHECK(at::equal(all.narrow(2, margin, s.rows), normalised(x, whole_of(x, layer), layer, silu)));
        CHECK(all.narrow(2, 0, margin).eq(0).all().item<bool>());
        CHECK(all.narrow(2, margin + s.rows, margin).eq(0).all().item<bool>());
      }
}

TEST_CASE("a group norm of values whose squares overflow is NaN, not 0") {
  const at::Tensor x = picture({1, 8, 4, 4, 2}, at::kFloat, 0) * 1e30;
  const GroupNorm layer = layer_of({1, 8, 4, 4, 2}, at::kFloat);
  const at::Tensor y = normalised(x, whole_of(x, layer), layer, true);
  CHECK(y.isnan().all().item<bool>());
}

TEST_CASE("bandwidth of group norm") {
  if (test::device().is_cpu() || std::getenv("XDIT_TEST_PRINT") == nullptr) return;
  for (const Shape& s : {Shape{1, 128, 1024, 1024, 32},
                         {1, 256, 1024, 1024, 32},
                         {1, 512, 256, 256, 32},
                         {1, 512, 128, 128, 32},
                         {2, 320, 128, 128, 32},
                         {2, 960, 128, 128, 32},
                         {1, 320, 128, 128, 32},
                         {2, 640, 64, 64, 32},
                         {2, 1280, 32, 32, 32},
                         {2, 320, 64, 64, 32},
                         {2, 640, 32, 32, 32},
                         {2, 1280, 8, 8, 32}}) {
    const at::Tensor x = picture(s, at::kBFloat16, 0), y = at::empty_like(x);
    const GroupNorm layer = layer_of(s, at::kBFloat16);
    const at::Tensor moments = row_moments(x, layer), whole = whole_of(x, layer);
    const double statistics = test::microseconds([&] { static_cast<void>(row_moments(x, layer)); });
    const double merge = test::microseconds(
        [&] { static_cast<void>(merge_rows(moments, s.channels / s.groups * s.columns)); });
    const double apply = test::microseconds([&] { normalise(x, whole, layer, true, y); });
    const double torch = test::microseconds([&] {
      at::Tensor z = at::group_norm(x, s.groups, layer.weight, layer.bias, layer.eps);
      at::silu_(z);
    });
    const auto bytes = static_cast<double>(x.nbytes());
    const double whole_at_once = test::microseconds([&] { group_norm(x, layer, true, y, 0); });
    std::printf(
        "group norm and SiLU %ld x %ld x %ld bf16: rows %.1f us (%.0f GB/s), merge %.1f us, apply %.1f us "
        "(%.0f GB/s); of the whole picture %.1f us; Torch's two %.1f us\n",
        s.channels, s.rows, s.columns, statistics, bytes / statistics / 1e3, merge, apply,
        2 * bytes / apply / 1e3, whole_at_once, torch);
  }
}

}  // namespace
}  // namespace xdit::nn
