// Attention over sets of keys, merged, is attention over all of them.
#include "nn/attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "nn/attention_by_products.h"
#include "tests/catch.h"
#include "tests/nn/device.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

using test::randn;
using test::relative_error;

struct Sizes {
  at::ScalarType type;
  std::int64_t heads, queries, keys, dim;
};

TEST_CASE("attention over parts of the keys, merged") {
  at::manual_seed(8);
  for (const auto& [type, heads, queries, keys, dim] : {Sizes{at::kFloat, 3, 47, 97, 10},
                                                        {at::kFloat, 2, 33, 600, 32},
                                                        {at::kFloat, 1, 70, 130, 512},
                                                        {at::kFloat, 2, 1, 50, 128},
                                                        {at::kBFloat16, 4, 130, 333, 128},
                                                        {at::kBFloat16, 3, 47, 97, 10},
                                                        {at::kHalf, 2, 1, 97, 64},
                                                        {at::kBFloat16, 1, 33, 96, 512}}) {
    CAPTURE(at::toString(type), heads, queries, keys, dim);
    // As the tokens lie in memory: [T, H, D].
    const auto tokens = [&, &h = heads, &d = dim, &t = type](std::int64_t count) {
      return randn({count, h, d}, t).unsqueeze(0).transpose(1, 2);  // [1, H, T, D]
    };
    const at::Tensor q = tokens(queries), k = tokens(keys), v = tokens(keys);
    const double scale = 0.3;
    const at::Tensor scores = at::matmul(q.to(at::kDouble), k.to(at::kDouble).transpose(2, 3)) * scale;
    const at::Tensor expected = at::softmax(scores, -1).matmul(v.to(at::kDouble));
    for (const std::int64_t parts : {1, 2, 3, 5, 8}) {
      CAPTURE(parts);
      AttentionPart sum;
      for (std::int64_t i = 0, first = 0; i < parts; ++i) {
        // Uneven, with a part of one key and one of none.
        const std::int64_t last = i + 1 == parts ? keys : keys * i * (i + 1) / (parts * parts) + (i == 1);
        merge(sum, partial_attention(q, k.narrow(2, first, last - first), v.narrow(2, first, last - first),
                                     scale));
        first = last;
      }
      CHECK(relative_error(sum.out, expected) < (type == at::kFloat ? 1e-5 : 2 * test::tolerance(type)));
      CHECK(relative_error(sum.log_sum_exp, at::logsumexp(scores, {-1})) < 1e-4);
      CHECK(sum.log_sum_exp.scalar_type() == at::kFloat);
    }
  }
}

TEST_CASE("attention by products does not depend on the rows at a time") {
  at::manual_seed(9);
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const auto& [pictures, heads, queries, keys, dim] : {std::array<std::int64_t, 5>{1, 1, 96, 256, 512},
                                                              {2, 3, 37, 97, 260},
                                                              {1, 1, 33, 1, 512},
                                                              {1, 2, 1, 50, 10}})
      for (const bool tf32 : {false, true}) {
        CAPTURE(at::toString(type), pictures, heads, queries, keys, dim, tf32);
        const auto tokens = [&, p = pictures, h = heads, d = dim](std::int64_t count) {
          return randn({p, count, h, d}, type).transpose(1, 2);  // [B, H, T, D]
        };
        const at::Tensor q = tokens(queries), k = tokens(keys), v = tokens(keys) + 1;
        const double scale = 1 / std::sqrt(static_cast<double>(dim));
        const at::Tensor y = attention_by_products(q, k, v, scale, tf32);
        const at::Tensor exact =
            at::softmax(at::matmul(q.to(at::kDouble), k.to(at::kDouble).transpose(2, 3)) * scale, -1);
        CHECK(y.scalar_type() == type);
        // TF32's factors may lose what is behind their 11 bits rather than be rounded.
        const double rounding = type != at::kFloat ? test::tolerance(type)
                                : tf32             ? 2 * test::tolerance(at::kHalf)
                                                   : 3e-6;
        CHECK(relative_error(y, exact.matmul(v.to(at::kDouble))) < rounding);
        for (const std::int64_t rows : {1, 7, 32, 95})
          CHECK(at::equal(attention_by_products(q, k, v, scale, tf32, rows), y));
        const std::int64_t few = std::min<std::int64_t>(queries, 5);
        CHECK(at::equal(attention_by_products(q.narrow(2, queries - few, few), k, v, scale, tf32),
                        y.narrow(2, queries - few, few)));
      }
}

TEST_CASE("attention without queries or keys") {
  const at::Tensor q = randn({1, 2, 5, 8}, at::kFloat), k = randn({1, 2, 7, 8}, at::kFloat);
  const auto none = [](const at::Tensor& x) { return x.narrow(2, 0, 0); };
  CHECK(scaled_dot_product(none(q), k, k, 1.0).sizes() == at::IntArrayRef({1, 2, 0, 8}));
  CHECK(partial_attention(none(q), k, k, 1.0).log_sum_exp.sizes() == at::IntArrayRef({1, 2, 0}));
  AttentionPart sum;
  for (int i = 0; i < 2; ++i) merge(sum, partial_attention(q, none(k), none(k), 1.0));
  CHECK(sum.out.abs().max().item<float>() == 0);
  CHECK(at::isneginf(sum.log_sum_exp).all().item<bool>());
  const AttentionPart part = partial_attention(q, k, k, 1.0);
  merge(sum, part);
  merge(sum, partial_attention(q, none(k), none(k), 1.0));
  CHECK(at::equal(sum.out, part.out));
  CHECK(at::equal(sum.log_sum_exp, part.log_sum_exp));
}

}  // namespace
}  // namespace xdit::nn
