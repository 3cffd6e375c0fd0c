// Rows in e4m3 and their products; on a GPU with XDIT_TEST_CUDA set.
#include "nn/quantise.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <array>
#include <cmath>
#include <limits>

#include "nn/linear.h"
#include "nn/ops.h"
#include "tests/catch.h"
#include "tests/nn/device.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

using test::device;
using test::randn;
using test::relative_error;

at::Tensor bytes(const at::Tensor& values) {
  return values.to(at::kCPU).view(at::kByte);
}

// Rows of very different sizes.
at::Tensor uneven(std::int64_t rows, std::int64_t width, at::ScalarType type) {
  const at::Tensor sizes = at::pow(10, at::linspace(-3, 3, rows)).to(device()).unsqueeze(1);
  return (randn({rows, width}, at::kFloat) * sizes).to(type);
}

at::Tensor whole(const Rows& rows) {
  return rows.values.to(at::kDouble) * rows.scales.to(at::kDouble).unsqueeze(1);
}

}  // namespace

TEST_CASE("a row in e4m3 uses all of its range, and each value is the nearest") {
  at::manual_seed(1);
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const auto& [rows, width, stride] : {std::array<std::int64_t, 3>{5, 3072, 3072},
                                              {7, 129, 131},
                                              {3, 40, 48},
                                              {2, 12288, 12288},
                                              {4, 1, 3}}) {
      CAPTURE(at::toString(type), rows, width);
      const at::Tensor x = uneven(rows, stride, type).narrow(1, 0, width);
      const Rows quantised = quantise_rows(x);
      CHECK(quantised.values.scalar_type() == at::kFloat8_e4m3fn);
      const at::Tensor largest = x.to(at::kDouble).abs().amax(1);
      CHECK(at::equal(quantised.values.to(at::kDouble).abs().amax(1), at::full_like(largest, 448)));
      CHECK(at::equal(quantised.scales, (largest / 448).to(at::kFloat)));
      // Half a unit of a mantissa of three bits, or of the smallest number, 2^-9.
      const at::Tensor step = quantised.scales.to(at::kDouble).unsqueeze(1) * std::exp2(-10);
      const at::Tensor allowed = at::maximum(x.to(at::kDouble).abs() * std::exp2(-4), step) * (1 + 1e-6);
      CHECK(((whole(quantised) - x.to(at::kDouble)).abs() <= allowed).all().item<bool>());

      Rows expected = quantise_rows(x.to(at::kCPU));
      CHECK(at::equal(bytes(quantised.values), bytes(expected.values)));
      CHECK(at::equal(quantised.scales.to(at::kCPU), expected.scales));
      const Rows last = quantise_rows(x.narrow(0, rows - 1, 1));
      CHECK(at::equal(bytes(last.values), bytes(quantised.values.narrow(0, rows - 1, 1))));
    }
}

TEST_CASE("rows of nothing but zeros stay so, and what is no number stays none") {
  const at::Tensor x = at::zeros({4, 40}, at::TensorOptions().dtype(at::kBFloat16).device(device()));
  x[1][7] = std::numeric_limits<float>::quiet_NaN();
  x[2][9] = std::numeric_limits<float>::infinity();
  x[3][5] = 1e-37;
  const Rows rows = quantise_rows(x);
  CHECK(at::equal(whole(rows)[0], at::zeros({40}, rows.values.options().dtype(at::kDouble))));
  CHECK(whole(rows)[1].isnan().any().item<bool>());
  CHECK(whole(rows)[2].isnan().any().item<bool>());
  CHECK(whole(rows)[3].isfinite().all().item<bool>());
  // A NaN's sign is the device's, and so is what else a row with one becomes.
  const at::Tensor same = at::tensor({0, 2, 3});
  CHECK(at::equal(at::nan_to_num(whole(rows).to(at::kCPU).index({same}), 9),
                  at::nan_to_num(whole(quantise_rows(x.to(at::kCPU))).index({same}), 9)));
  CHECK(quantise_rows(x.narrow(0, 0, 0)).values.sizes() == at::IntArrayRef({0, 40}));
}

TEST_CASE("normed rows are quantised as those of the norm's result are") {
  at::manual_seed(3);
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const auto& [rows, width] :
         {std::array<std::int64_t, 2>{5, 3072}, {7, 129}, {3, 3073}, {2, 24576}, {0, 64}}) {
      CAPTURE(at::toString(type), rows, width);
      const at::Tensor x = randn({rows, width}, type);
      const at::Tensor shift = randn({width}, type), scale = randn({width}, type);
      const Rows fused = modulated_rows(x, shift, scale, /*quantised=*/true);
      const Rows apart = quantise_rows(modulated_rows(x, shift, scale, /*quantised=*/false).values);
      CHECK(at::equal(bytes(fused.values), bytes(apart.values)));
      CHECK(at::equal(fused.scales, apart.scales));
    }
}

TEST_CASE("a linear of quantised rows is the product of what they stand for") {
  const c10::InferenceMode inference;
  at::manual_seed(2);
  for (const auto& [out, in] : {std::array<std::int64_t, 2>{128, 640}, {90, 30}, {30, 150}, {8, 33}}) {
    CAPTURE(out, in);
    const at::Tensor x = uneven(77, in, at::kBFloat16);
    const at::Tensor weight = randn({out, in}, at::kBFloat16) / std::sqrt(static_cast<double>(in));
    const at::Tensor bias = randn({out}, at::kBFloat16);
    const Rows quantised = quantise_rows(weight);
    const ResidentWeights weights(
        {{"a.weight", quantised.values}, {"a.weight_scale", quantised.scales}, {"a.bias", bias}});
    const auto layer = LocalLinears().make(weights, "a", true);
    CHECK(layer->outputs() == out);

    const at::Tensor product = at::linear(whole(quantise_rows(x)), whole(quantised));
    const at::Tensor sum = product + bias.to(at::kDouble);
    const at::Tensor y = (*layer)(x);
    CHECK(y.scalar_type() == at::kBFloat16);
    CHECK(relative_error(y, sum) < 4e-3);
    CHECK(relative_error((*layer)(x, Activation::kGeluTanh), at::gelu(sum, "tanh")) < 8e-3);
    CHECK(relative_error((*layer)(x, Activation::kSilu), at::silu(sum)) < 8e-3);
    const at::Tensor partial = linear_partial(x, matrix_of(weights, "a"));
    CHECK(partial.scalar_type() == at::kFloat);
    CHECK(relative_error(partial, product) < 1e-3);
    // A rounding of either factor costs 2.6 % at most on average.
    const at::Tensor exact = at::linear(x.to(at::kDouble), weight.to(at::kDouble));
    CHECK(relative_error(product, exact) < 0.045);
    CHECK(relative_error(product, exact) > 0.015);

    const at::Tensor wide = at::zeros({77, out + 16}, x.options());
    layer->into(wide.narrow(1, 16, out), x);
    CHECK(at::equal(wide.narrow(1, 16, out), y));
    layer->into(wide.narrow(1, 16, out), x, Activation::kGeluTanh);
    CHECK(at::equal(wide.narrow(1, 16, out), (*layer)(x, Activation::kGeluTanh)));
    CHECK(at::equal((*layer)(x.narrow(0, 0, 76).view({2, 38, in})), y.narrow(0, 0, 76).view({2, 38, out})));
    for (const std::int64_t rows : {1, 3, 33, 76}) {
      CAPTURE(rows);
      CHECK(at::equal((*layer)(x.narrow(0, 77 - rows, rows)), y.narrow(0, 77 - rows, rows)));
      CHECK(at::equal(linear_partial(x.narrow(0, 0, rows), quantised), partial.narrow(0, 0, rows)));
    }
    CHECK((*layer)(x.narrow(0, 0, 0)).sizes() == at::IntArrayRef({0, out}));
  }
}

}  // namespace xdit::nn
