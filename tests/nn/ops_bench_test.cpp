// XDIT_TEST_CUDA=1 build/test_nn "the time of operations on rows" prints, at FLUX's, SDXL's and Stable
// Diffusion 1.5's shapes, the microseconds of each operation of nn/ops.h, the bytes that it has to read and
// write in them, and the microseconds of Torch's own operations.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <array>
#include <string_view>
#include <utility>

#include "nn/cudnn_attention.h"
#include "nn/fused.h"
#include "nn/ops.h"
#include "nn/quantise.h"
#include "tests/catch.h"
#include "tests/nn/device.h"
#include "tests/nn/timing.h"

namespace xdit::nn {
namespace {

using test::randn;

template <class Ours, class Torch>
void line(std::string_view name, const at::Tensor& x, double bytes, const Ours& ours, const Torch& torch) {
  const double us = test::captured_microseconds(ours), theirs = test::captured_microseconds(torch);
  fmt::print("{:<28} {:<8} {:>5} {:>6} {:>9.1f} {:>6.0f} {:>11.1f} {:>6.2f}\n", name,
             at::toString(x.scalar_type()), x.size(0), x[0].numel(), us, bytes / us / 1e3, theirs,
             us / theirs);
}

// Of a residual stream [rows, width].
void time_modulated(std::int64_t rows, std::int64_t width) {
  const at::Tensor x = randn({rows, width}, at::kBFloat16), y = randn({rows, width}, at::kBFloat16);
  const at::Tensor shift = randn({width}, at::kBFloat16), scale = randn({width}, at::kBFloat16);
  const at::Tensor gate = shift / 1000;
  const Rows quantised = empty_rows(x);
  const auto bytes = static_cast<double>(x.nbytes()), of_e4m3 = static_cast<double>(x.numel() + 4 * rows);
  const auto torch = [&] { return at::layer_norm(x, {width}, {}, {}, 1e-6) * (1 + scale) + shift; };
  line(
      "x += gate y", x, 3 * bytes,
      [&] {
        add_gated(x, {gate, y});
      },
      [&] { x.addcmul_(gate, y); });
  line(
      "modulated norm", x, 2 * bytes,
      [&] { static_cast<void>(modulated_rows(x, shift, scale, /*quantised=*/false)); },
      [&] { static_cast<void>(torch()); });
  line(
      "x += gate y and the norm", x, 4 * bytes,
      [&] {
        static_cast<void>(modulated_rows(x, shift, scale, /*quantised=*/false, {gate, y}));
      },
      [&] {
        x.addcmul_(gate, y);
        static_cast<void>(torch());
      });
  line(
      "modulated norm in e4m3", x, bytes + of_e4m3,
      [&] { static_cast<void>(modulated_rows(x, shift, scale, /*quantised=*/true)); },
      [&] { reference::quantise_rows(torch(), quantised); });
}

void time_quantise_rows(std::int64_t rows, std::int64_t width) {
  const at::Tensor x = randn({rows, width}, at::kBFloat16);
  const Rows quantised = empty_rows(x);
  line(
      "rows in e4m3", x, static_cast<double>(x.nbytes() + x.numel() + 4 * rows),
      [&] { quantise_rows(x, quantised); }, [&] { reference::quantise_rows(x, quantised); });
}

void time_norm_and_rotate(std::int64_t tokens, std::int64_t heads, std::int64_t dim) {
  const at::Tensor qkv = randn({tokens, 3, heads, dim}, at::kBFloat16);
  const TokenNorms norms{tokens, randn({dim}, at::kBFloat16), randn({dim}, at::kBFloat16)};
  const at::Tensor angles = randn({tokens, dim / 2}, at::kFloat);
  const at::Tensor rotary = at::stack({angles.cos(), angles.sin()}, 2);
  const at::Tensor turn = at::view_as_complex(rotary).unsqueeze(1);  // [T, 1, D / 2]
  const at::Tensor q = at::empty({tokens, heads, dim}, qkv.options()), k = at::empty_like(q);
  const auto rotated = [&](std::int64_t part, const at::Tensor& weight) {
    const at::Tensor normed = at::rms_norm(qkv.select(1, part), {dim}, weight, 1e-6).to(at::kFloat);
    return at::view_as_real(at::view_as_complex(normed.unflatten(-1, {-1, 2})) * turn).flatten(-2);
  };
  const auto theirs = [&] {
    q.copy_(rotated(0, norms.query));
    k.copy_(rotated(1, norms.key));
  };
  line(
      "norm and rotation of q, k", qkv, static_cast<double>(4 * q.nbytes() + rotary.nbytes()),
      [&] { norm_and_rotate(qkv, norms, rotary, q, k.unsqueeze(0)); }, theirs);
  const at::Tensor all = at::empty({2, 2 * tokens, heads, dim}, qkv.options());  // of two ranks
  const std::array places{all.narrow(1, 0, tokens / 9), all.narrow(1, tokens, tokens - tokens / 9)};
  line(
      "... and v, to two places", qkv, static_cast<double>(6 * q.nbytes() + rotary.nbytes()),
      [&] { norm_and_rotate(qkv, norms, rotary, q, places); },
      [&] {
        theirs();
        std::int64_t first = 0;
        for (const at::Tensor& place : places) {
          place[0].copy_(k.narrow(0, first, place.size(1)));
          place[1].copy_(qkv.narrow(0, first, place.size(1)).select(1, 2));
          first += place.size(1);
        }
      });
}

// Of a decoder's scores of so many rows.
void time_softmax(std::int64_t rows, std::int64_t width) {
  const at::Tensor x = randn({rows, width}, at::kFloat);
  const at::Tensor y = at::empty({rows, width}, x.options().dtype(at::kBFloat16));
  line(
      "softmax's numerators, bf16", x, static_cast<double>(x.nbytes() + y.nbytes()),
      [&] { static_cast<void>(softmax_numerators(y, x, 0.044)); },
      [&] { static_cast<void>(at::softmax(x * 0.044, -1).to(at::kBFloat16)); });
}

// To a prompt of 77 tokens, of two pictures' rows.
void time_prompt(std::int64_t rows, std::int64_t heads, std::int64_t dim) {
  const auto by_head = [&](const at::Tensor& x) { return x.view({2, -1, heads, dim}).transpose(1, 2); };
  const at::Tensor x = randn({rows, heads * dim}, at::kHalf), y = at::empty_like(x);
  const at::Tensor kv = randn({2 * 77, heads * dim}, at::kHalf);
  const at::Tensor q = by_head(x), k = by_head(kv), out = by_head(y);
  cudnn::Attentions attentions;
  line(
      "attention to a prompt", x, 2.0 * static_cast<double>(x.nbytes()),
      [&] { static_cast<void>(fused::prompt_attention(out, q, k, k, 0.1)); },
      [&] { static_cast<void>(attentions(out, q, k, k, 0.1)); });
}

// Of a UNet's transformer of so many channels.
void time_unet(std::int64_t rows, std::int64_t width) {
  const at::Tensor x = randn({rows, width}, at::kHalf), gates = randn({rows, 8 * width}, at::kHalf);
  const at::Tensor weight = randn({width}, at::kHalf), bias = randn({width}, at::kHalf);
  line(
      "layer norm", x, 2.0 * static_cast<double>(x.nbytes()),
      [&] { static_cast<void>(layer_norm(x, weight, bias, 1e-5)); },
      [&] { static_cast<void>(at::layer_norm(x, {width}, weight, bias, 1e-5)); });
  line(
      "gated gelu", gates, 1.5 * static_cast<double>(gates.nbytes()),
      [&] { static_cast<void>(gated_gelu(gates)); },
      [&] {
        static_cast<void>(gates.narrow(1, 0, 4 * width) * at::gelu(gates.narrow(1, 4 * width, 4 * width)));
      });
}

TEST_CASE("the time of operations on rows", "[.bench]") {
  REQUIRE(test::device().is_cuda());
  const c10::InferenceMode inference;
  at::manual_seed(1);
  fmt::print("{:<28} {:<8} {:>5} {:>6} {:>9} {:>6} {:>11} {:>6}\n", "", "", "rows", "width", "ours us",
             "GB/s", "Torch's us", "ratio");
  for (const std::int64_t rows : {4608, 4096, 2304, 512}) {
    time_modulated(rows, 3072);
    time_norm_and_rotate(rows, 24, 128);
  }
  for (const std::int64_t width : {3072, 12288, 15360}) time_quantise_rows(4608, width);
  for (const auto& [rows, width] :
       {std::pair<std::int64_t, std::int64_t>{8192, 320}, {8192, 640}, {2048, 1280}})
    time_unet(rows, width);
  for (const auto& [rows, heads, dim] : {std::array<std::int64_t, 3>{8192, 10, 64},
                                         {2048, 20, 64},
                                         {8192, 8, 40},
                                         {2048, 8, 80},
                                         {512, 8, 160}})
    time_prompt(rows, heads, dim);
  for (const std::int64_t width : {4096, 15625, 16384, 65536}) time_softmax((1 << 26) / width, width);
}

}  // namespace
}  // namespace xdit::nn
