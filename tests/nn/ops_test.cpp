// Each fused operation against its Torch form in float64, over dtypes and odd sizes; on a GPU with
// XDIT_TEST_CUDA set.
#include "nn/ops.h"

#include <ATen/ATen.h>

#include <array>
#include <limits>
#include <vector>

#include "nn/activation.h"
#include "nn/linear.h"
#include "tests/catch.h"
#include "tests/nn/device.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

using test::device;
using test::randn;
using test::relative_error;
using test::tolerance;

constexpr std::array kTypes{at::kFloat, at::kHalf, at::kBFloat16};

TEST_CASE("modulated layer norm") {
  at::manual_seed(1);
  for (const at::ScalarType type : kTypes)
    for (const auto& [rows, width, stride] : {std::array<std::int64_t, 3>{5, 3072, 3072},
                                              {1, 30, 30},
                                              {7, 129, 131},
                                              {3, 40, 48},
                                              {2, 12288, 12288},
                                              {2, 24576, 24576},
                                              {3, 1025, 1025},
                                              {3, 3073, 3074},
                                              {4, 1, 3}}) {
      CAPTURE(at::toString(type), rows, width, stride);
      const at::Tensor x = (3 * randn({rows, stride}, type) + 1).narrow(1, 0, width);
      const at::Tensor shift = randn({width}, type), scale = randn({width}, type);
      const at::Tensor y = modulated_rows(x, shift, scale, /*quantised=*/false).values;
      const at::Tensor expected =
          at::layer_norm(x.to(at::kDouble), {width}, {}, {}, 1e-6) * (scale.to(at::kDouble) + 1) +
          shift.to(at::kDouble);
      CHECK(y.scalar_type() == type);
      CHECK(relative_error(y, expected) < tolerance(type));
    }
}

TEST_CASE("layer norm") {
  at::manual_seed(8);
  for (const at::ScalarType type : kTypes)
    for (const auto& [rows, width, stride] :
         {std::array<std::int64_t, 3>{5, 1280, 1280}, {1, 30, 30}, {7, 129, 131}, {0, 40, 48}}) {
      CAPTURE(at::toString(type), rows, width, stride);
      const at::Tensor x = (3 * randn({rows, stride}, type) + 1).narrow(1, 0, width);
      const at::Tensor weight = randn({width}, type), bias = randn({width}, type);
      const at::Tensor y = layer_norm(x, weight, bias, 1e-5);
      const at::Tensor expected =
          at::layer_norm(x.to(at::kDouble), {width}, weight.to(at::kDouble), bias.to(at::kDouble), 1e-5);
      CHECK(y.scalar_type() == type);
      CHECK(y.sizes() == x.sizes());
      if (rows > 0) CHECK(relative_error(y, expected) < tolerance(type));
    }
}

TEST_CASE("gated gelu") {
  at::manual_seed(9);
  for (const at::ScalarType type : kTypes)
    for (const auto& [rows, width, stride] :
         {std::array<std::int64_t, 3>{5, 2560, 5120}, {4099, 8, 16}, {7, 9, 21}, {0, 4, 8}}) {
      CAPTURE(at::toString(type), rows, width, stride);
      const at::Tensor x = (3 * randn({rows, stride}, type)).narrow(1, 0, 2 * width);
      const at::Tensor y = gated_gelu(x);
      const std::vector<at::Tensor> halves = x.to(at::kDouble).chunk(2, 1);
      CHECK(y.scalar_type() == type);
      CHECK(y.sizes() == at::IntArrayRef({rows, width}));
      if (rows > 0) CHECK(relative_error(y, halves[0] * at::gelu(halves[1])) < tolerance(type));
    }
}

// In units of the last place.
TEST_CASE("gated gelu of every finite gate in float16, on a GPU") {
  if (!device().is_cuda()) return;  // LibTorch's vectors are off by up to 6
  const at::Tensor gates = at::arange(1 << 16, at::TensorOptions().dtype(at::kInt).device(device()))
                               .to(at::kShort)
                               .view(at::kHalf);
  const at::Tensor x = at::stack({at::ones_like(gates), gates}, 1);
  const at::Tensor y = gated_gelu(x).flatten(), expected = at::gelu(gates.to(at::kDouble)).to(at::kHalf);
  const auto place = [](const at::Tensor& values) {
    const at::Tensor bits = values.view(at::kShort).to(at::kInt);
    return at::where(bits.lt(0), -bits.bitwise_and(0x7fff), bits);
  };
  const at::Tensor off = (place(y) - place(expected)).abs().masked_select(gates.isfinite());
  CHECK(off.max().item<int>() <= 1);
}

TEST_CASE("numerators of a softmax and their sums") {
  at::manual_seed(10);
  const double scale = 0.3;
  for (const at::ScalarType type : kTypes)
    for (const auto& [rows, width, stride, y_stride] : {std::array<std::int64_t, 4>{5, 16384, 16384, 16384},
                                                        {3, 15625, 15632, 15632},
                                                        {3, 9000, 9000, 9008},
                                                        {2, 70000, 70000, 70000},
                                                        {7, 4096, 4096, 4099},
                                                        {9, 129, 131, 136},
                                                        {4, 40, 40, 48},
                                                        {6, 1, 3, 8},
                                                        {0, 40, 40, 40}})
      for (const double magnitude : {3., 1e4, 1e30}) {
        CAPTURE(at::toString(type), rows, width, stride, y_stride, magnitude);
        const at::Tensor x = (magnitude * randn({rows, stride}, at::kFloat)).narrow(1, 0, width);
        const at::Tensor buffer = at::full({rows, y_stride}, 7, x.options().dtype(type));
        const at::Tensor y = buffer.narrow(1, 0, width);
        const at::Tensor sums = softmax_numerators(y, x, scale);
        CHECK(sums.scalar_type() == at::kFloat);
        CHECK(sums.sizes() == at::IntArrayRef({rows}));
        CHECK(buffer.narrow(1, width, y_stride - width).eq(7).all().item<bool>());
        if (rows == 0) continue;
        const at::Tensor exact = x.to(at::kDouble);
        CHECK(relative_error(y, at::exp((exact - exact.amax(1, true)) * scale)) < tolerance(type));
        CHECK(y.amax(1).eq(1).all().item<bool>());
        CHECK(relative_error(sums, y.to(at::kDouble).sum(1)) < 1e-6);
        if (device().is_cpu()) continue;
        const at::Tensor alone = at::zeros_like(buffer.narrow(0, 0, 1)).narrow(1, 0, width);
        CHECK(at::equal(softmax_numerators(alone, x.narrow(0, rows - 1, 1), scale),
                        sums.narrow(0, rows - 1, 1)));
        CHECK(at::equal(alone, y.narrow(0, rows - 1, 1)));
      }
}

TEST_CASE("numerators of a softmax of equal scores are ones") {
  for (const at::ScalarType type : kTypes)
    for (const double score : {0., -3e38, 1e-40, 12345.})
      for (const std::int64_t width : {1, 77, 16384}) {
        CAPTURE(at::toString(type), score, width);
        const at::Tensor x = at::full({3, width}, score, at::TensorOptions(at::kFloat).device(device()));
        const at::Tensor y = at::empty({3, width}, x.options().dtype(type));
        CHECK(softmax_numerators(y, x, 2.5).eq(width).all().item<bool>());
        CHECK(y.eq(1).all().item<bool>());
      }
}

TEST_CASE("embeddings of times as diffusers orders and shifts them") {
  const at::Tensor times = at::tensor({0.0F, 1.0F, 481.25F}, device());
  const at::Tensor y = timestep_embedding(times, {.width = 6, .cosine_first = false, .frequency_shift = 1});
  const at::Tensor angles =
      times.to(at::kDouble).unsqueeze(1) * at::tensor({1.0, 1e-2, 1e-4}, device()).unsqueeze(0);
  CHECK(relative_error(y, at::cat({at::sin(angles), at::cos(angles)}, 1)) < 1e-4);
  const at::Tensor swapped = timestep_embedding(times, {.width = 6, .frequency_shift = 1});
  CHECK(at::equal(swapped, at::roll(y, 3, 1)));
}

TEST_CASE("gated add") {
  at::manual_seed(2);
  for (const at::ScalarType type : kTypes)
    for (const auto& [rows, width, stride, y_stride] : {std::array<std::int64_t, 4>{5, 3072, 3072, 3072},
                                                        {1, 30, 30, 30},
                                                        {5000, 9, 11, 9},
                                                        {3, 40, 48, 40},
                                                        {5, 3072, 3072, 12288},
                                                        {7, 40, 48, 56},
                                                        {7, 40, 40, 43}}) {
      CAPTURE(at::toString(type), rows, width, stride, y_stride);
      const at::Tensor buffer = randn({rows, stride}, type);
      const at::Tensor outside = buffer.narrow(1, width, stride - width).clone();
      const at::Tensor x = buffer.narrow(1, 0, width);
      const at::Tensor gate = randn({width}, type), y = randn({rows, y_stride}, type).narrow(1, 0, width);
      const at::Tensor expected = x.to(at::kDouble) + gate.to(at::kDouble) * y.to(at::kDouble);
      add_gated(x, {gate, y});
      CHECK(relative_error(x, expected) < tolerance(type));
      CHECK(at::equal(buffer.narrow(1, width, stride - width), outside));
    }
}

TEST_CASE("a gated add saturates in float16") {
  const at::Tensor x = at::full({2, 8}, 60000, at::TensorOptions().dtype(at::kHalf).device(device()));
  add_gated(x, {at::ones_like(x[0]), x.clone()});
  CHECK(at::equal(x.cpu(), at::full({2, 8}, 65504, at::kHalf)));
}

TEST_CASE("norm and rotation") {
  at::manual_seed(3);
  for (const at::ScalarType type : kTypes)
    for (const auto& [tokens, heads, dim, extra] : {std::array<std::int64_t, 4>{9, 24, 128, 0},
                                                    {5, 3, 10, 0},
                                                    {7, 10, 64, 0},
                                                    {3, 5, 64, 8},
                                                    {3, 4, 32, 64},
                                                    {2, 1, 256, 8},
                                                    {4, 5, 6, 1}}) {
      CAPTURE(at::toString(type), tokens, heads, dim, extra);
      const at::Tensor rows = randn({tokens, 3 * heads * dim + extra}, type);
      const at::Tensor qkv = rows.narrow(1, 0, 3 * heads * dim).unflatten(1, {3, heads, dim});
      const TokenNorms norms{tokens, randn({dim}, type) + 1, randn({dim}, type) + 1};
      const at::Tensor angles = at::randn({tokens, dim / 2}, at::kDouble);
      const at::Tensor rotary = at::stack({angles.cos(), angles.sin()}, 2).to(device(), at::kFloat);
      const at::Tensor q = at::empty({tokens, heads, dim}, rows.options()), k = at::empty_like(q);
      norm_and_rotate(qkv, norms, rotary, q, k.unsqueeze(0));
      const auto expected = [&](std::int64_t part, const at::Tensor& weight) {
        const at::Tensor x = qkv.select(1, part).to(at::kCPU, at::kDouble);
        const at::Tensor n =
            x * at::rsqrt(x.square().mean(-1, true) + 1e-6) * weight.to(at::kCPU, at::kDouble);
        const at::Tensor complex = at::view_as_complex(n.unflatten(-1, {-1, 2}).contiguous());
        const at::Tensor turn = at::polar(at::ones_like(angles), angles).unsqueeze(1);
        return at::view_as_real(complex * turn).flatten(-2);
      };
      CHECK(relative_error(q, expected(0, norms.query)) < tolerance(type));
      CHECK(relative_error(k, expected(1, norms.key)) < tolerance(type));
    }
}

// Of 11 tokens: each place a first position in a buffer of 20 and a number of tokens.
TEST_CASE("keys and values of normed and rotated tokens go to their places") {
  using Places = std::vector<std::array<std::int64_t, 2>>;
  at::manual_seed(10);
  const std::int64_t tokens = 11, positions = 20;
  for (const at::ScalarType type : kTypes)
    for (const auto& [heads, dim, extra] : {std::array<std::int64_t, 3>{24, 128, 0},
                                            {5, 64, 8},
                                            {2, 256, 0},
                                            {3, 32, 64},
                                            {3, 10, 0},
                                            {5, 6, 1}})
      for (const Places& ranges : {Places{{3, 11}},
                                   {{0, 4}, {9, 7}},
                                   {{13, 7}, {1, 4}},  // in no order
                                   {{2, 0}, {5, 11}, {17, 0}},
                                   {{0, 3}, {4, 1}, {6, 7}},
                                   {{0, 2}, {3, 2}, {6, 2}, {9, 2}, {16, 3}}})
        for (const std::int64_t planes : {1, 2}) {
          CAPTURE(at::toString(type), heads, dim, extra, ranges.size(), ranges[0][0], planes);
          const at::Tensor rows = randn({tokens, 3 * heads * dim + extra}, type);
          const at::Tensor qkv = rows.narrow(1, 0, 3 * heads * dim).unflatten(1, {3, heads, dim});
          qkv[4][2].fill_(std::numeric_limits<double>::infinity());  // values may be anything
          qkv[5][2].fill_(-0.0);
          const TokenNorms norms{tokens, randn({dim}, type) + 1, randn({dim}, type) + 1};
          const at::Tensor rotary = randn({tokens, dim / 2, 2}, at::kFloat);
          const at::Tensor q = at::empty({tokens, heads, dim}, rows.options()), k = at::empty_like(q);
          norm_and_rotate(qkv, norms, rotary, q, k.unsqueeze(0));

          const at::Tensor buffer = randn({planes, positions, heads, dim}, type), expected = buffer.clone();
          std::vector<at::Tensor> places;
          std::int64_t first = 0;
          for (const auto& [position, count] : ranges) {
            places.push_back(buffer.narrow(1, position, count));
            const at::Tensor place = expected.narrow(1, position, count);
            place[0].copy_(k.narrow(0, first, count));
            if (planes == 2) place[1].copy_(qkv.narrow(0, first, count).select(1, 2));
            first += count;
          }
          const at::Tensor placed_q = at::empty_like(q);
          norm_and_rotate(qkv, norms, rotary, placed_q, places);
          CHECK(at::equal(placed_q, q));
          CHECK(at::equal(buffer, expected));  // nothing else is written
          CHECK(at::equal(buffer.signbit(), expected.signbit()));

          const auto on_host = [](const at::Tensor& x) { return x.cpu(); };
          const at::Tensor host_q = at::empty_like(on_host(q)), host_k = at::empty_like(host_q);
          reference::norm_and_rotate(on_host(qkv), {tokens, on_host(norms.query), on_host(norms.key)},
                                     on_host(rotary), host_q, host_k.unsqueeze(0), 1e-6);
          CHECK(relative_error(q, host_q) < tolerance(type));
          CHECK(relative_error(k, host_k) < tolerance(type));
        }
}

TEST_CASE("a rotation by the rotary table depends on the distance of positions alone") {
  const std::array<std::int64_t, 3> axes{2, 4, 6};
  const at::Tensor positions = at::tensor({0., 3., 5., 0., 13., 25.}, at::kDouble).view({2, 3});
  const at::Tensor table = rotary_table(positions, axes).to(at::kDouble);
  const at::Tensor moved =
      rotary_table(positions + at::tensor({0., 7., 2.}, at::kDouble), axes).to(at::kDouble);
  const auto turn = [](const at::Tensor& t) { return at::view_as_complex(t.contiguous()); };
  CHECK(at::allclose(turn(table)[0] * turn(table)[1].conj(), turn(moved)[0] * turn(moved)[1].conj(), 1e-5,
                     1e-6));
}

TEST_CASE("linear with an activation is the linear, then the activation") {
  at::manual_seed(4);
  for (const at::ScalarType type : kTypes)
    for (const Activation activation : {Activation::kGelu, Activation::kGeluTanh, Activation::kQuickGelu,
                                        Activation::kSilu, Activation::kRelu}) {
      const ResidentWeights weights({{"a.weight", randn({24, 16}, type)}, {"a.bias", randn({24}, type)}});
      const auto linear = LocalLinears().make(weights, "a", true);
      const at::Tensor x = randn({5, 16}, type);
      CAPTURE(at::toString(type), static_cast<int>(activation));
      const at::Tensor exact = activate(at::linear(x.to(at::kDouble), weights.get("a.weight").to(at::kDouble),
                                                   weights.get("a.bias").to(at::kDouble)),
                                        activation);
      CHECK(relative_error((*linear)(x, activation), exact) < 3 * tolerance(type));
    }
  CHECK_THROWS_WITH(activation_from_name("quick_gleu"), ContainsSubstring("quick_gelu"));
}

TEST_CASE("a linear onto rows adds to what is there, strided or not") {
  at::manual_seed(9);
  for (const at::ScalarType type : kTypes)
    for (const auto& [out, in] : {std::array<std::int64_t, 2>{64, 128}, {30, 33}}) {  // aligned, and not
      CAPTURE(at::toString(type), out, in);
      const ResidentWeights weights({{"a.weight", randn({out, in}, type)}, {"a.bias", randn({out}, type)}});
      const auto linear = LocalLinears().make(weights, "a", true);
      const at::Tensor x = randn({77, in}, type), before = randn({77, out + 16}, type);
      const at::Tensor y = before.clone();
      linear->onto(y.narrow(1, 16, out), x);
      const auto exact = [](const at::Tensor& t) { return t.to(at::kDouble); };
      const at::Tensor sum =
          at::linear(exact(x), exact(weights.get("a.weight")), exact(weights.get("a.bias"))) +
          exact(before.narrow(1, 16, out));
      CHECK(relative_error(y.narrow(1, 16, out), sum) < 2 * tolerance(type));
      CHECK(at::equal(y.narrow(1, 0, 16), before.narrow(1, 0, 16)));
      for (const std::int64_t rows : {1, 3, 33, 76}) {  // by rows, the same bits
        const at::Tensor some = before.narrow(0, 77 - rows, rows).clone();
        linear->onto(some.narrow(1, 16, out), x.narrow(0, 77 - rows, rows));
        CHECK(at::equal(some, y.narrow(0, 77 - rows, rows)));
      }
    }
}

TEST_CASE("attention of tokens normed in parts, into strided rows") {
  at::manual_seed(5);
  const std::int64_t heads = 3, dim = 10;
  const at::Tensor qkv = randn({11, 3, heads, dim}, at::kFloat);
  const at::Tensor norm = randn({dim}, at::kFloat);
  const at::Tensor rotary =
      rotary_table(at::arange(33, at::kDouble).view({11, 3}), std::array<std::int64_t, 3>{2, 2, 6})
          .to(device());
  LocalAttention attention;
  const at::Tensor buffer = at::zeros({11, heads * dim + 5}, qkv.options());
  attention.begin(0, qkv, rotary);
  attention.add(4, {7, norm, norm});
  attention.add(0, {4, norm, norm});
  attention.finish(buffer.narrow(1, 0, heads * dim));
  const at::Tensor whole = at::empty({11, heads * dim}, qkv.options());
  attention.begin(0, qkv, rotary);
  attention.add(0, {11, norm, norm});
  attention.finish(whole);
  CHECK(at::equal(buffer.narrow(1, 0, heads * dim), whole));
  CHECK(buffer.narrow(1, heads * dim, 5).abs().max().item<float>() == 0);
}

}  // namespace
}  // namespace xdit::nn
