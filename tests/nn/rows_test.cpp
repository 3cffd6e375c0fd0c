// The law that ranks stand on, on a GPU with XDIT_TEST_CUDA set (tiles_test.cpp holds it on the CPU): the
// bits of a row or a head do not depend on what is computed beside it.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <set>
#include <vector>

#include "nn/attention.h"
#include "nn/counters.h"
#include "nn/fused.h"
#include "nn/linear.h"
#include "tests/catch.h"
#include "tests/nn/device.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

using test::device;
using test::randn;
using test::relative_error;
using Counts = std::vector<std::int64_t>;
const Counts kNone;

constexpr std::array kAllTypes{at::kBFloat16, at::kHalf, at::kFloat};

// Every small count, and those of even and nearly even cuts of FLUX's rows over up to 8 ranks.
Counts row_counts(std::int64_t rows) {
  std::set<std::int64_t> counts{511, 513, 575, 576, 577};
  for (std::int64_t i = 1; i <= 260; ++i)
    if (i <= 70 || (100 <= i && i <= 130) || (190 <= i && i <= 200) || 250 <= i) counts.insert(i);
  for (const std::int64_t full : {512, 4096, 4608, 16384, 16896})
    for (std::int64_t ranks = 1; ranks <= 8; ++ranks) {
      const std::int64_t part = full / ranks;
      counts.merge(std::set{part - 1, part, part + 1, full - (ranks - 1) * part});
    }
  counts.erase(counts.upper_bound(rows), counts.end());
  return {counts.begin(), counts.end()};
}

Counts every(std::size_t step, const Counts& counts) {
  Counts some;
  for (std::size_t i = 0; i < counts.size(); i += step) some.push_back(counts[i]);
  return some;
}

// The counts of rows, at the beginning or at the end, whose f differs from that of all rows.
template <class F>
Counts differing(const at::Tensor& x, const Counts& counts, F&& f) {
  const at::Tensor whole = f(x);
  Counts found;
  for (const std::int64_t count : counts) {
    const std::int64_t last = x.size(0) - count;
    if (!at::equal(f(x.narrow(0, 0, count)), whole.narrow(0, 0, count)) ||
        !at::equal(f(x.narrow(0, last, count)), whole.narrow(0, last, count)))
      found.push_back(count);
  }
  return found;
}

struct Shape {
  std::int64_t out, in;
};
// FLUX's, T5's in float32 and the VAE's, then those of the models of configs/demo and tests/data.
constexpr std::array<Shape, 20> kShapes{
    {{9216, 3072}, {3072, 3072}, {12288, 3072}, {3072, 12288}, {21504, 3072}, {3072, 15360}, {3072, 64},
     {3072, 4096}, {64, 3072},   {3072, 256},   {3072, 768},   {512, 512},    {4096, 10240}, {384, 128},
     {128, 640},   {32, 128},    {90, 30},      {120, 30},     {30, 150},     {64, 30}}};

TEST_CASE("products by rows on a GPU") {
  if (!device().is_cuda()) return;
  const c10::InferenceMode inference;
  at::manual_seed(1);
  for (const at::ScalarType type : kAllTypes)
    for (const auto& [out, in] : kShapes) {
      CAPTURE(at::toString(type), out, in);
      const std::int64_t rows = out * in < 100'000 ? 686 : type == at::kFloat ? 4608 : 16896;
      const at::Tensor x = randn({rows, in}, type), wide = randn({rows, in + 40}, type).narrow(1, 8, in),
                       odd = randn({rows, in + 3}, type).narrow(1, 1, in);
      const at::Tensor weight = randn({out, in}, type) / std::sqrt(static_cast<double>(in));
      const at::Tensor bias = randn({out}, type);
      const ResidentWeights weights({{"a.weight", weight}, {"a.bias", bias}});
      const auto layer = LocalLinears().make(weights, "a", true);
      const auto plain = [&](const at::Tensor& part) { return (*layer)(part); };
      const auto gelu = [&](const at::Tensor& part) { return (*layer)(part, Activation::kGeluTanh); };
      const auto bare = [&](const at::Tensor& part) { return nn::linear(part, weight); };
      const auto partial = [&](const at::Tensor& part) { return linear_partial(part, {weight}); };

      const Counts counts = every(type == at::kFloat ? 3 : 1, row_counts(rows)), some = every(5, counts);
      CHECK(differing(x, counts, plain) == kNone);
      CHECK(differing(x, some, gelu) == kNone);
      CHECK(differing(x, some, bare) == kNone);
      CHECK(differing(x, some, partial) == kNone);
      CHECK(differing(wide, some, plain) == kNone);
      CHECK(at::equal(plain(wide), plain(wide.contiguous())));
      CHECK(at::equal(plain(odd.narrow(0, 0, 99)), plain(odd.narrow(0, 0, 99).contiguous())));

      const at::Tensor few = x.narrow(0, 5, 64).to(at::kDouble);
      const at::Tensor product = at::linear(few, weight.to(at::kDouble));
      const at::Tensor sum = product + bias.to(at::kDouble);
      const double rounding = type == at::kFloat ? 1e-5 : test::tolerance(type);
      CHECK(relative_error(plain(x.narrow(0, 5, 64)), sum) < rounding);
      CHECK(relative_error(gelu(x.narrow(0, 5, 64)), at::gelu(sum, "tanh")) < 3 * rounding);
      CHECK(relative_error(partial(x.narrow(0, 5, 64)), product) < 1e-4);
      CHECK(partial(x.narrow(0, 5, 3)).scalar_type() == at::kFloat);
      CHECK(plain(x.narrow(0, 0, 0)).sizes() == at::IntArrayRef({0, out}));
      const at::Tensor batch = x.narrow(0, 0, 6).view({2, 3, in});
      CHECK(at::equal(plain(batch), plain(x.narrow(0, 0, 6)).view({2, 3, out})));
    }
}

// SDXL's and Stable Diffusion 1.5's, where sums are short and the best tile follows the number of rows.
TEST_CASE("products of UNets by rows on a GPU") {
  if (!device().is_cuda()) return;
  const c10::InferenceMode inference;
  at::manual_seed(2);
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16})
    for (const auto& [out, in] : {Shape{10240, 1280}, Shape{3840, 1280}, Shape{5120, 640}, Shape{1920, 640},
                                  Shape{2560, 320}, Shape{960, 320}, Shape{320, 320}, Shape{320, 960}}) {
      CAPTURE(at::toString(type), out, in);
      const at::Tensor x = randn({8192, in}, type);
      const at::Tensor weight = randn({out, in}, type) / std::sqrt(static_cast<double>(in));
      const ResidentWeights weights({{"a.weight", weight}, {"a.bias", randn({out}, type)}});
      const auto layer = LocalLinears().make(weights, "a", true);
      const at::Tensor sum = randn({8192, out}, type);
      const auto onto = [&](const at::Tensor& part) {
        at::Tensor y = sum.narrow(0, part.storage_offset() / in, part.size(0)).clone();
        layer->onto(y, part);
        return y;
      };
      const Counts counts{4096, 2048, 2047, 1024, 683, 512, 341, 154, 128, 77, 20, 1};
      CHECK(differing(x, counts, [&](const at::Tensor& part) { return (*layer)(part); }) == kNone);
      CHECK(differing(x, counts, onto) == kNone);
    }
}

// Of SDXL's decoder in float32 beside 16 bits.
TEST_CASE("products in TF32, and attention by them, by rows on a GPU") {
  if (!device().is_cuda()) return;
  const c10::InferenceMode inference;
  at::manual_seed(3);
  const Counts counts{8192, 8191, 4096, 1025, 1024, 683, 512, 128, 65, 33, 7, 1};
  for (const auto& [out, in] :
       {Shape{256, 512}, Shape{128, 256}, Shape{512, 512}, Shape{512, 4608}, Shape{3, 1152}}) {
    CAPTURE(out, in);
    const at::Tensor x = randn({16384, in}, at::kFloat), sum = randn({16384, out}, at::kFloat);
    const at::Tensor weight = randn({out, in}, at::kFloat) / std::sqrt(static_cast<double>(in));
    const at::Tensor bias = randn({out}, at::kFloat);
    const auto product = [&](const at::Tensor& part) {
      return fused::linear(part, weight, bias, /*gelu_tanh=*/false, at::kFloat, /*tf32=*/true);
    };
    const auto onto = [&](const at::Tensor& part) {
      at::Tensor y = sum.narrow(0, part.storage_offset() / in, part.size(0)).clone();
      fused::linear_onto(y, part, weight, bias, /*tf32=*/true);
      return y;
    };
    CHECK(differing(x, counts, product) == kNone);
    CHECK(differing(x, counts, onto) == kNone);
    const at::Tensor few = x.narrow(0, 3, 40).to(at::kDouble);
    CHECK(relative_error(product(x.narrow(0, 3, 40)),
                         at::linear(few, weight.to(at::kDouble), bias.to(at::kDouble))) <
          2 * test::tolerance(at::kHalf));
  }
  const at::Tensor q = randn({4096, 512}, at::kFloat), k = randn({4096, 512}, at::kFloat),
                   v = randn({4096, 512}, at::kFloat);
  const auto headed = [](const at::Tensor& t) { return t.unsqueeze(0).unsqueeze(0); };
  const auto attend = [&](const at::Tensor& rows) {
    return scaled_dot_product(headed(rows), headed(k), headed(v), 1 / std::sqrt(512.0), {}, false,
                              /*tf32=*/true)
        .squeeze(0)
        .squeeze(0);
  };
  CHECK(differing(q, {2048, 2047, 1025, 512, 33, 1}, attend) == kNone);
}

TEST_CASE("products of e4m3 by rows on a GPU") {
  if (!device().is_cuda()) return;
  const c10::InferenceMode inference;
  at::manual_seed(3);
  for (const auto& [out, in] : kShapes) {
    CAPTURE(out, in);
    const std::int64_t rows = out * in < 100'000 ? 686 : 16896;
    const at::Tensor x = randn({rows, in}, at::kBFloat16);
    const Rows weight = quantise_rows(randn({out, in}, at::kBFloat16) / std::sqrt(static_cast<double>(in)));
    const ResidentWeights weights({{"a.weight", weight.values},
                                   {"a.weight_scale", weight.scales},
                                   {"a.bias", randn({out}, at::kBFloat16)}});
    const auto layer = LocalLinears().make(weights, "a", true);
    const Counts counts = row_counts(rows), some = every(5, counts);
    CHECK(differing(x, counts, [&](const at::Tensor& part) { return (*layer)(part); }) == kNone);
    CHECK(differing(x, some, [&](const at::Tensor& part) { return (*layer)(part, Activation::kGeluTanh); }) ==
          kNone);
    CHECK(differing(x, some, [&](const at::Tensor& part) { return linear_partial(part, weight); }) == kNone);
  }
}

struct Heads {
  at::ScalarType type;
  std::int64_t heads, tokens, dim;
  Counts counts;
};

TEST_CASE("attention by query rows and by heads on a GPU") {
  if (!device().is_cuda()) return;
  const c10::InferenceMode inference;
  at::manual_seed(2);
  const Counts many{2304, 1153, 1152, 922, 640, 577, 576, 513, 512, 300,
                    256,  129,  128,  65,  64,  33,  16,  3,   2,   1};
  const Counts some{577, 64, 49, 16, 3, 2, 1};  // cuDNN takes a tenth of a second for a new count
  for (const Heads& of : {Heads{at::kBFloat16, 24, 4608, 128, many},
                          {at::kHalf, 24, 4608, 128, some},
                          {at::kFloat, 24, 4608, 128, many},
                          {at::kBFloat16, 1, 4096, 512, many},
                          {at::kFloat, 1, 4096, 512, many},
                          {at::kHalf, 1, 1023, 512, some},
                          {at::kBFloat16, 6, 333, 264, some},
                          {at::kFloat, 2, 333, 260, some},
                          {at::kBFloat16, 6, 1023, 64, some},
                          {at::kBFloat16, 1, 1023, 8, some},
                          {at::kHalf, 8, 256, 160, some},
                          {at::kHalf, 8, 64, 160, some},
                          {at::kBFloat16, 6, 77, 64, some},
                          {at::kBFloat16, 16, 1024, 160, some},
                          {at::kFloat, 1, 1023, 8, many},
                          {at::kBFloat16, 4, 333, 32, some},
                          {at::kFloat, 4, 333, 32, many},
                          {at::kBFloat16, 3, 97, 10, some},
                          {at::kHalf, 3, 97, 10, some},
                          {at::kFloat, 3, 97, 10, many},
                          {at::kFloat, 3, 7, 6, some}}) {
    CAPTURE(at::toString(of.type), of.heads, of.tokens, of.dim);
    const std::array<at::Tensor, 3> qkv{randn({of.tokens, of.heads, of.dim}, of.type),
                                        randn({of.tokens, of.heads, of.dim}, of.type),
                                        randn({of.tokens, of.heads, of.dim}, of.type)};
    const double scale = 1 / std::sqrt(static_cast<double>(of.dim));
    TokenAttention in_place(std::make_shared<cudnn::Attentions>());
    const auto attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      at::Tensor y = at::empty({q.size(0), 2 * q.size(1), q.size(2)}, q.options()).narrow(1, 0, q.size(1));
      in_place(y, q, k, v);
      return y.contiguous();
    };
    const auto rows = [&](const at::Tensor& q) { return attend(q, qkv[1], qkv[2]); };
    Counts counts;
    for (const std::int64_t count : of.counts)
      if (count <= of.tokens) counts.push_back(count);
    CHECK(differing(qkv[0], counts, rows) == kNone);
    CHECK(rows(qkv[0].narrow(0, 0, 0)).size(0) == 0);

    const at::Tensor whole = rows(qkv[0]);
    Counts broken;
    for (const std::int64_t ranks : {2, 3, 4, 6, 8, 12, 24})
      if (of.heads % ranks == 0) {
        const std::int64_t size = of.heads / ranks;
        const auto mine = [&](const at::Tensor& x) {
          return x.narrow(1, of.heads - size, size).contiguous();
        };
        if (!at::equal(attend(mine(qkv[0]), mine(qkv[1]), mine(qkv[2])), mine(whole)) ||
            !at::equal(attend(mine(qkv[0]).narrow(0, 2, 5), mine(qkv[1]), mine(qkv[2])),
                       mine(whole).narrow(0, 2, 5)))
          broken.push_back(ranks);
      }
    CHECK(broken == kNone);

    const auto exact = [](const at::Tensor& x) { return x.transpose(0, 1).to(at::kDouble); };  // [H, T, D]
    const at::Tensor few = exact(qkv[0].narrow(0, 0, 5));
    const at::Tensor expected =
        at::softmax(at::matmul(few, exact(qkv[1]).transpose(1, 2)) * scale, -1).matmul(exact(qkv[2]));
    const auto batched = [](const at::Tensor& x) { return x.unsqueeze(0).transpose(1, 2); };
    const bool few_keys = of.tokens <= 80 && of.type != at::kFloat;  // another kernel's
    if (!few_keys)
      CHECK(at::equal(batched(whole),
                      scaled_dot_product(batched(qkv[0]), batched(qkv[1]), batched(qkv[2]), scale)));
    CHECK(relative_error(rows(qkv[0].narrow(0, 0, 5)), expected.transpose(0, 1)) <
          (of.type == at::kFloat ? 3e-6 : test::tolerance(of.type)));
  }
}

TEST_CASE("attention of pictures is that of each alone, by rows as well, on a GPU") {
  if (!device().is_cuda()) return;
  const c10::InferenceMode inference;
  at::manual_seed(4);
  for (const auto& [heads, dim, tokens, keys] : {std::array<std::int64_t, 4>{10, 64, 4096, 4096},
                                                 {20, 64, 1024, 77},
                                                 {8, 40, 1024, 77},
                                                 {8, 80, 256, 256},
                                                 {8, 160, 64, 64},
                                                 {8, 160, 256, 77},
                                                 {2, 256, 128, 77}}) {
    CAPTURE(heads, dim, tokens, keys);
    const at::Tensor q = randn({2, tokens, heads, dim}, at::kHalf),
                     k = randn({2, keys, heads, dim}, at::kHalf), v = randn({2, keys, heads, dim}, at::kHalf);
    TokenAttention attention(std::make_shared<cudnn::Attentions>());
    const auto attend = [&](const at::Tensor& rows, const at::Tensor& of_keys, const at::Tensor& values) {
      at::Tensor y = at::empty_like(rows);
      attention(y, rows, of_keys, values);
      return y;
    };
    const at::Tensor both = attend(q, k, v);
    for (std::int64_t i = 0; i < 2; ++i) {
      const auto one = [&](const at::Tensor& x) { return x.narrow(0, i, 1).contiguous(); };
      CHECK(at::equal(attend(one(q), one(k), one(v)), one(both)));
      for (const std::int64_t rows : {tokens / 2, std::int64_t{33}, std::int64_t{1}})
        CHECK(at::equal(attend(one(q).narrow(1, tokens - rows, rows).contiguous(), one(k), one(v)),
                        one(both).narrow(1, tokens - rows, rows)));
    }
  }
}

std::vector<cudaGraphNodeType> node_types(at::cuda::CUDAGraph& graph) {
  std::size_t count = 0;
  C10_CUDA_CHECK(cudaGraphGetNodes(graph.raw_cuda_graph(), nullptr, &count));
  std::vector<cudaGraphNode_t> nodes(count);
  C10_CUDA_CHECK(cudaGraphGetNodes(graph.raw_cuda_graph(), nodes.data(), &count));
  std::vector<cudaGraphNodeType> types(count);
  for (std::size_t i = 0; i < count; ++i) C10_CUDA_CHECK(cudaGraphNodeGetType(nodes[i], &types[i]));
  return types;
}

TEST_CASE("products and attention in a captured graph, whose small fills are kernels or one") {
  if (!device().is_cuda()) return;
  const c10::InferenceMode inference;
  at::manual_seed(3);
  const at::Tensor weight = randn({5120, 640}, at::kHalf), bias = randn({5120}, at::kHalf);
  const at::Tensor x = randn({8192, 640}, at::kHalf);  // whose product counts its tiles
  TokenAttention attention(std::make_shared<cudnn::Attentions>());
  const auto step = [&] {
    const at::Tensor y = nn::linear(x, weight, bias).narrow(1, 0, 1920).unflatten(1, {3, 10, 64});
    const at::Tensor out = at::empty({8192, 10, 64}, x.options());
    attention(out, y.select(1, 0), y.select(1, 1).slice(0, 0, 8192, 64),
              y.select(1, 2).slice(0, 0, 8192, 64));
    return nn::linear(out.flatten(1), weight);
  };
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  static_cast<void>(step());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor bytes = at::empty({1000}, x.options().dtype(at::kByte));  // no memory of the graph's own
  const at::Tensor many = at::empty({200'000}, bytes.options());
  at::Tensor counters;
  at::cuda::CUDAGraph graph(/*keep_graph=*/true);
  at::Tensor captured, doubled;
  {
    const Counters of_graph(device());
    graph.capture_begin();
    captured = step();
    C10_CUDA_CHECK(cudaMemsetAsync(bytes.data_ptr(), 7, 999, stream));
    doubled = bytes + bytes;  // comes after the fill
    C10_CUDA_CHECK(cudaMemsetAsync(many.data_ptr(), 5, 200'000, stream));
    C10_CUDA_CHECK(cudaMemset2DAsync(bytes.data_ptr(), 100, 3, 10, 5, stream));
    graph.capture_end();
    counters = of_graph.used();
  }
  const auto memsets = [&] { return std::ranges::count(node_types(graph), cudaGraphNodeTypeMemset); };
  const auto fills_before = memsets(), nodes_before = std::ssize(node_types(graph));
  fused::fill_by_kernels(graph, counters);
  CHECK(memsets() == 2);                     // the large one and the one of several rows stay
  const bool counts = counters.numel() > 0;  // Hopper's kernels do
  CHECK((fills_before > 4) == counts);
  CHECK(std::ssize(node_types(graph)) == nodes_before - (fills_before - 3) + (counts ? 1 : 0));
  graph.instantiate();
  for (int i = 0; i < 3; ++i) {
    bytes.zero_();
    counters.fill_(i + 1);
    x.copy_(randn({8192, 640}, at::kHalf));
    graph.replay();
    CHECK(at::equal(captured, step()));
    CHECK(captured.abs().max().item<float>() > 0);
    CHECK(at::equal(doubled.narrow(0, 0, 999), at::full({999}, 14, doubled.options())));
    CHECK(bytes[999].item<int>() == 0);
    CHECK(bytes[205].item<int>() == 3);
    CHECK(many.eq(5).all().item<bool>());
  }
}

}  // namespace
}  // namespace xdit::nn
