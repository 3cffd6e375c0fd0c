// Pictures made twice as large and sums of convolutions, against Torch. On a GPU with XDIT_TEST_CUDA set;
// XDIT_TEST_PRINT then shows their times.
#include "nn/spatial.h"

#include <ATen/ATen.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "tests/catch.h"
#include "tests/nn/device.h"
#include "tests/nn/timing.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

at::Tensor channels_last(at::IntArrayRef shape, at::ScalarType type) {
  return at::randn(shape).to(test::device(), type).contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor exact(const at::Tensor& x) {
  return x.to(at::kCPU, at::kDouble);
}

double rounding(at::ScalarType type) {
  return type == at::kFloat ? 2e-6 : type == at::kHalf ? 1e-3 : 8e-3;
}

TEST_CASE("a convolution of a doubled picture is Torch's, for odd sizes as well") {
  at::manual_seed(1);
  const LocalSpatial spatial;
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const auto& [batch, channels, rows, columns] :
         {std::array<std::int64_t, 4>{2, 64, 6, 10}, {1, 12, 5, 3}, {1, 3, 1, 4}, {2, 320, 7, 9}})
      for (const std::int64_t less : {0, 1}) {
        CAPTURE(at::toString(type), batch, channels, rows, columns, less);
        const at::Tensor x = channels_last({batch, channels, rows, columns}, type);
        const Convolution layer{channels_last({16, channels, 3, 3}, type), at::Tensor()};
        const std::int64_t high = 2 * rows - less, wide = 2 * columns - less;
        const at::Tensor large =
            at::upsample_nearest2d(exact(x), {2 * rows, 2 * columns}).narrow(2, 0, high).narrow(3, 0, wide);
        CHECK(test::relative_error(spatial.convolve_doubled(x, layer, spatial, high, wide),
                                   at::conv2d(large, exact(layer.weight), {}, 1, 1)) < rounding(type));
      }
}

// Some rows of a whole picture, as ranks have them: takes its windows from them and their halos.
class Slab final : public Spatial {
 public:
  Slab(RowPlace of, at::Tensor whole, std::shared_ptr<Convolutions> convolutions)
      : Spatial(std::move(convolutions)), of_(of), whole_(std::move(whole)) {}
  [[nodiscard]] const Spatial& halved() const override { return *this; }
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& rows) const override { return rows.flatten(1, 2); }
  [[nodiscard]] at::Tensor rows() const { return whole_.narrow(2, of_.first, of_.count); }

 private:
  [[nodiscard]] at::Tensor whole_moments(const at::Tensor& rows, std::int64_t row_elements) const override {
    return merge_rows(rows, row_elements);
  }
  void fill_halo(const at::Tensor& padded, std::int64_t halo) const override {
    CHECK(at::equal(padded.narrow(2, halo, of_.count), rows()));
    padded.copy_(at::constant_pad_nd(whole_, {0, 0, halo, halo}).narrow(2, of_.first, of_.count + 2 * halo));
  }
  [[nodiscard]] RowPlace place(std::int64_t rows) const override {
    CHECK(rows == of_.count);
    return of_;
  }

  RowPlace of_;
  at::Tensor whole_;
};

TEST_CASE("whole pictures convolve to the bits that rows with halos do") {
  at::manual_seed(3);
  const auto convolutions = std::make_shared<Convolutions>();
  const LocalSpatial local(convolutions);
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const std::int64_t rows : {1, 2, 6, 7})
      for (const std::int64_t columns : {4, 9})
        for (const std::int64_t channels : {64, 3}) {
          CAPTURE(at::toString(type), rows, columns, channels);
          const at::Tensor x = channels_last({2, channels, rows, columns}, type);
          const Slab halos({.count = rows, .all = rows}, x, convolutions);
          const at::Tensor weight = channels_last({16, channels, 3, 3}, type);
          const Convolution plain{weight, at::Tensor()}, halving{weight, at::Tensor(), /*stride=*/2};
          CHECK(at::equal(local.convolve(x, plain), halos.convolve(x, plain)));
          CHECK(at::equal(local.convolve_halved(x, halving), halos.convolve_halved(x, halving)));
          for (const std::int64_t less : {0, 1}) {
            const std::int64_t high = 2 * rows - less, wide = 2 * columns - less;
            const Slab doubled({.count = high, .all = high}, {}, convolutions);
            CHECK(at::equal(local.convolve_doubled(x, plain, local, high, wide),
                            halos.convolve_doubled(x, plain, doubled, high, wide)));
          }
        }
}

TEST_CASE("any rows of a doubled picture are the whole one's, also where no row of the small one is theirs") {
  at::manual_seed(4);
  const auto convolutions = std::make_shared<Convolutions>();
  const LocalSpatial local(convolutions);
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const auto& [high, wide, channels] :
         {std::array<std::int64_t, 3>{10, 6, 64}, {9, 5, 64}, {7, 8, 3}, {1, 1, 16}}) {
      const at::Tensor x = channels_last({1, channels, (high + 1) / 2, (wide + 1) / 2}, type);
      const Convolution layer{channels_last({16, channels, 3, 3}, type), at::Tensor()};
      const at::Tensor whole = local.convolve_doubled(x, layer, local, high, wide);
      for (std::int64_t first = 0; first < high; ++first)
        for (std::int64_t rows = 1; rows <= high - first; ++rows) {
          CAPTURE(at::toString(type), high, wide, channels, first, rows);
          const std::int64_t half = (first + 1) / 2;  // as SplitSpatial halves rows
          const Slab small({half, (first + rows + 1) / 2 - half, x.size(2)}, x, convolutions);
          const Slab doubled({first, rows, high}, {}, convolutions);
          CHECK(at::equal(small.convolve_doubled(small.rows(), layer, doubled, rows, wide),
                          whole.narrow(2, first, rows)));
        }
    }
}

TEST_CASE("a sum takes a convolution of one pixel, rounded once at most beside it") {
  at::manual_seed(2);
  const LocalSpatial spatial;
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const auto& [batch, inputs, outputs, rows, columns] :
         {std::array<std::int64_t, 5>{2, 64, 32, 6, 10}, {1, 12, 20, 5, 3}, {1, 960, 320, 16, 16}}) {
      CAPTURE(at::toString(type), batch, inputs, outputs, rows, columns);
      const at::Tensor x = channels_last({batch, inputs, rows, columns}, type);
      const at::Tensor sum = channels_last({batch, outputs, rows, columns}, type);
      const Convolution layer{channels_last({outputs, inputs, 1, 1}, type),
                              at::randn({outputs}).to(test::device(), type)};
      const at::Tensor expected = exact(sum) + at::conv2d(exact(x), exact(layer.weight), exact(layer.bias));
      spatial.add_shortcut(sum, x, layer);
      CHECK(test::relative_error(sum, expected) < rounding(type));
    }
}

TEST_CASE("the time of doubling") {
  if (test::device().is_cpu() || std::getenv("XDIT_TEST_PRINT") == nullptr) return;
  const LocalSpatial spatial;
  for (const auto& [channels, side] :
       {std::pair<std::int64_t, std::int64_t>{1280, 32}, {640, 64}, {256, 512}}) {
    const at::Tensor x = channels_last({2, channels, side, side}, at::kHalf);
    const Convolution layer{channels_last({8, channels, 3, 3}, at::kHalf), at::Tensor()};
    const double ours = test::microseconds(
        [&] { static_cast<void>(spatial.convolve_doubled(x, layer, spatial, 2 * side, 2 * side)); });
    const double torch = test::microseconds([&] {
      static_cast<void>(at::conv2d(at::upsample_nearest2d(x, {2 * side, 2 * side}), layer.weight, {}, 1, 1));
    });
    std::printf("doubled and convolved to 8 channels, 2 x %ld x %ld x %ld fp16: %.1f us; Torch's %.1f us\n",
                channels, side, side, ours, torch);
  }
}

}  // namespace
}  // namespace xdit::nn
