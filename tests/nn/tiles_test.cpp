// The law that ranks stand on: a row's bits do not depend on which rows are computed beside it, nor on
// threads.
#include "nn/tiles.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>

#include "nn/ops.h"
#include "tests/catch.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

constexpr std::array kTypes{at::kFloat, at::kBFloat16, at::kHalf};

// Cuts `rows` at uneven places: first parts of one row, then of three, then of 37, until none are left.
std::vector<std::pair<std::int64_t, std::int64_t>> cuts(std::int64_t rows) {
  std::vector<std::pair<std::int64_t, std::int64_t>> parts;
  constexpr std::array<std::int64_t, 5> kSizes{1, 3, 37, 2, 64};
  for (std::int64_t first = 0, i = 0; first < rows; ++i) {
    const std::int64_t size = std::min(kSizes[static_cast<std::size_t>(i) % kSizes.size()], rows - first);
    parts.emplace_back(first, size);
    first += size;
  }
  return parts;
}

// f of all rows at once equals f of each part, with any number of threads.
template <class F>
void check_rows(const at::Tensor& x, std::int64_t dimension, F&& f) {
  at::set_num_threads(2);
  const at::Tensor whole = f(x);
  for (const int threads : {1, 2, 3, 8}) {
    at::set_num_threads(threads);
    CHECK(at::equal(f(x), whole));
    if (threads > 2) continue;
    for (const auto& [first, size] : cuts(x.size(dimension))) {
      CAPTURE(threads, first, size);
      CHECK(at::equal(f(x.narrow(dimension, first, size)), whole.narrow(dimension, first, size)));
    }
  }
  at::set_num_threads(2);
}

TEST_CASE("linears by rows") {
  at::manual_seed(1);
  for (const at::ScalarType type : kTypes)
    for (const auto& [in, out] :
         {std::pair<std::int64_t, std::int64_t>{30, 90}, {40, 120}, {128, 512}, {7, 3}}) {
      CAPTURE(at::toString(type), in, out);
      const at::Tensor weight = at::randn({out, in}).to(type), bias = at::randn({out}).to(type);
      const at::Tensor x = at::randn({141, in}).to(type);
      check_rows(x, 0, [&](const at::Tensor& rows) { return tiles::linear(rows, weight, bias); });
      const Activation gelu = Activation::kGeluTanh;
      check_rows(x, 0, [&](const at::Tensor& rows) { return tiles::linear(rows, weight, bias, &gelu); });
      CHECK(test::relative_error(tiles::linear(x, weight, bias),
                                 at::linear(x.to(at::kDouble), weight.to(at::kDouble),
                                            bias.to(at::kDouble))) < (type == at::kFloat ? 1e-6 : 4e-3));
    }
}

TEST_CASE("activations by rows, strided or not") {
  at::manual_seed(2);
  for (const at::ScalarType type : kTypes)
    for (const std::int64_t width : {1, 7, 30, 120, 513, 2048}) {
      CAPTURE(at::toString(type), width);
      const at::Tensor x = at::randn({141, width + 5}).to(type).narrow(1, 0, width);
      for (const Activation activation : {Activation::kGelu, Activation::kGeluTanh, Activation::kSilu})
        check_rows(x, 0, [&](const at::Tensor& rows) {
          const at::Tensor out = at::empty({rows.size(0), width}, rows.options());
          activate_into(out, rows, activation);
          return out;
        });
    }
}

TEST_CASE("attention by query rows and by heads") {
  at::manual_seed(3);
  for (const at::ScalarType type : kTypes)
    for (const auto& [keys, dim] : {std::pair<std::int64_t, std::int64_t>{1, 10},
                                    {4, 32},
                                    {5, 24},
                                    {16, 32},
                                    {23, 32},
                                    {31, 6},
                                    {47, 10},
                                    {47, 40},
                                    {141, 32},
                                    {600, 64}}) {
      CAPTURE(at::toString(type), keys, dim);
      const at::Tensor q = at::randn({1, 6, 141, dim}).to(type);
      const at::Tensor k = at::randn({1, 6, keys, dim}).to(type), v = at::randn({1, 6, keys, dim}).to(type);
      check_rows(q, 2, [&](const at::Tensor& rows) { return tiles::attention(rows, k, v, 0.3).out; });
      const at::Tensor whole = tiles::attention(q, k, v, 0.3).out;
      for (const auto& [first, size] : {std::pair<std::int64_t, std::int64_t>{0, 1}, {1, 2}, {3, 3}}) {
        const auto heads = [&](const at::Tensor& t) { return t.narrow(1, first, size); };
        CHECK(at::equal(tiles::attention(heads(q), heads(k), heads(v), 0.3).out, heads(whole)));
      }
      const at::Tensor exact =
          at::softmax(at::matmul(q.to(at::kDouble), k.to(at::kDouble).transpose(2, 3)) * 0.3, -1)
              .matmul(v.to(at::kDouble));
      CHECK(test::relative_error(whole, exact) < (type == at::kFloat ? 1e-6 : 1e-2));
    }
}

TEST_CASE("causal attention and a bias mean what they mean in Torch") {
  at::manual_seed(4);
  const at::Tensor q = at::randn({2, 3, 45, 8}), k = at::randn({2, 3, 45, 8}), v = at::randn({2, 3, 45, 8});
  const at::Tensor bias = at::randn({1, 3, 45, 45});
  CHECK(test::relative_error(tiles::attention(q, k, v, 0.5, {}, true).out,
                             at::scaled_dot_product_attention(q, k, v, {}, 0, true, 0.5)) < 1e-6);
  CHECK(test::relative_error(tiles::attention(q, k, v, 0.5, bias).out,
                             at::scaled_dot_product_attention(q, k, v, bias, 0, false, 0.5)) < 1e-6);
}

TEST_CASE("convolutions by rows with their halos") {
  at::manual_seed(5);
  for (const at::ScalarType type : kTypes)
    for (const std::int64_t kernel : {1, 3}) {
      CAPTURE(at::toString(type), kernel);
      const at::Tensor x = at::randn({1, 6, 45, 37}).to(type);
      const at::Tensor weight = at::randn({9, 6, kernel, kernel}).to(type), bias = at::randn({9}).to(type);
      const std::int64_t halo = kernel / 2;
      const at::Tensor whole = tiles::convolution(x, weight, bias, halo);
      CHECK(test::relative_error(
                whole, at::conv2d(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble), 1, halo)) <
            (type == at::kFloat ? 1e-6 : 4e-3));
      const at::Tensor padded = at::constant_pad_nd(x, {0, 0, halo, halo});
      for (const int threads : {1, 2}) {
        at::set_num_threads(threads);
        for (const auto& [first, size] : cuts(45)) {
          CAPTURE(threads, first, size);
          CHECK(at::equal(tiles::convolution(padded.narrow(2, first, size + 2 * halo), weight, bias, 0),
                          whole.narrow(2, first, size)));
        }
      }
    }
}

TEST_CASE("norms by rows") {
  at::manual_seed(6);
  for (const at::ScalarType type : kTypes)
    for (const std::int64_t width : {7, 30, 128, 513}) {
      CAPTURE(at::toString(type), width);
      const at::Tensor x = at::randn({141, width}).to(type), shift = at::randn({width}).to(type),
                       scale = at::randn({width}).to(type);
      check_rows(x, 0, [&](const at::Tensor& rows) {
        return modulated_rows(rows, shift, scale, /*quantised=*/false).values;
      });
      check_rows(x, 0, [&](const at::Tensor& rows) { return layer_norm(rows, scale, shift, 1e-5); });
      check_rows(x, 0, [&](const at::Tensor& rows) { return gated_gelu(at::cat({rows, rows}, 1)); });
      check_rows(x, 0, [&](const at::Tensor& rows) { return rms_norm(rows, scale, 1e-6); });
      check_rows(x, 0, [&](const at::Tensor& rows) {
        const at::Tensor sum = rows.clone();
        add_gated(sum, {scale, rows});
        return sum;
      });
    }
}

TEST_CASE("norm and rotation by rows") {
  at::manual_seed(7);
  for (const at::ScalarType type : kTypes)
    for (const std::int64_t dim : {6, 10, 32, 128}) {
      CAPTURE(at::toString(type), dim);
      const at::Tensor qkv = at::randn({141, 3, 3, dim}).to(type), norm = at::randn({dim}).to(type);
      const at::Tensor rotary = at::randn({141, dim / 2, 2});
      const auto q_and_k = [&](std::int64_t first, std::int64_t size) {
        const at::Tensor q = at::empty({size, 3, dim}, qkv.options()), k = at::empty_like(q);
        norm_and_rotate(qkv.narrow(0, first, size), TokenNorms{size, norm, norm},
                        rotary.narrow(0, first, size), q, k.unsqueeze(0));
        return at::stack({q, k});
      };
      const at::Tensor whole = q_and_k(0, 141);
      for (const auto& [first, size] : cuts(141))
        CHECK(at::equal(q_and_k(first, size), whole.narrow(1, first, size)));
    }
}

}  // namespace
}  // namespace xdit::nn
