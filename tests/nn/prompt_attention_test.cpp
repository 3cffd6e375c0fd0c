// Attention to few keys by its kernel, against Torch's in float64; on a GPU with XDIT_TEST_CUDA set. That
// rows keep their bits whatever is beside them: rows_test.cpp.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <array>
#include <cmath>
#include <limits>

#include "nn/fused.h"
#include "tests/catch.h"
#include "tests/nn/device.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

using test::device;
using test::randn;
using test::relative_error;
using test::tolerance;

at::Tensor exact(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
  return at::matmul(at::softmax(at::matmul(wide(q), wide(k).transpose(2, 3)) * scale, -1), wide(v));
}

TEST_CASE("attention to few keys is Torch's, from strided rows into strided rows") {
  if (!device().is_cuda()) return;
  const c10::InferenceMode inference;
  at::manual_seed(12);
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16})
    for (const auto& [pictures, heads, dim, tokens, keys] : {std::array<std::int64_t, 5>{2, 10, 64, 257, 77},
                                                             {1, 8, 40, 1000, 77},
                                                             {2, 8, 80, 64, 80},
                                                             {1, 3, 160, 130, 1},
                                                             {2, 2, 8, 5, 2},
                                                             {2, 2, 128, 1, 79},
                                                             {1, 1, 104, 16, 17},
                                                             {1, 2, 32, 129, 64}})
      for (const double magnitude : {1., 1000.}) {
        CAPTURE(at::toString(type), pictures, heads, dim, tokens, keys, magnitude);
        const auto by_head = [&, h = heads, d = dim](const at::Tensor& x) {
          return x.unflatten(2, {h, d}).transpose(1, 2);  // [B, H, T, D]
        };
        const std::int64_t width = heads * dim;
        const at::Tensor q =
            by_head((magnitude * randn({pictures, tokens, 3 * width}, type)).narrow(2, width, width));
        const at::Tensor rows = randn({pictures, keys + 1, 2 * width}, type);
        rows.select(1, keys).fill_(std::numeric_limits<double>::quiet_NaN());
        const at::Tensor kv = rows.narrow(1, 0, keys);
        const at::Tensor k = by_head(kv.narrow(2, 0, width)), v = by_head(kv.narrow(2, width, width));
        const at::Tensor buffer = at::full({pictures, tokens + 1, width + 8}, 7, q.options());
        const at::Tensor out = by_head(buffer.narrow(1, 0, tokens).narrow(2, 0, width));
        const double scale = 1 / std::sqrt(static_cast<double>(dim));
        REQUIRE(fused::prompt_attention(out, q, k, v, scale));
        CHECK(relative_error(out, exact(q, k, v, scale)) < tolerance(type));
        CHECK(buffer.narrow(2, width, 8).eq(7).all().item<bool>());
        CHECK(buffer.select(1, tokens).eq(7).all().item<bool>());
        // Rows that begin anywhere have the same bits.
        const at::Tensor crooked = at::empty({pictures, heads, tokens, dim + 1}, q.options());
        const at::Tensor queries = crooked.narrow(3, 1, dim),
                         results = at::empty_like(crooked).narrow(3, 1, dim);
        queries.copy_(q);
        REQUIRE(fused::prompt_attention(results, queries, k, v, scale));
        CHECK(at::equal(results, out));
      }
}

TEST_CASE("attention to few keys leaves to others what it does not take") {
  if (!device().is_cuda()) return;
  const c10::InferenceMode inference;
  const auto takes = [](std::int64_t keys, std::int64_t dim, at::ScalarType type) {
    const at::Tensor q = randn({1, 2, 16, dim}, type), k = randn({1, 2, keys, dim}, type);
    const at::Tensor out = at::full({1, 2, 16, dim}, 7, q.options());
    const bool taken = fused::prompt_attention(out, q, k, k, 1);
    CHECK(out.eq(7).all().item<bool>() == !taken);
    return taken;
  };
  CHECK(takes(80, 160, at::kHalf));
  CHECK_FALSE(takes(81, 160, at::kHalf));
  CHECK_FALSE(takes(80, 168, at::kHalf));
  CHECK_FALSE(takes(80, 64, at::kFloat));
  CHECK_FALSE(takes(80, 60, at::kHalf));
}

}  // namespace
}  // namespace xdit::nn
