// A search on a GPU, run by name only (test_nn "[probe]"): which of cuDNN's convolution plans, and which ways
// to compute the decoder's one-headed attention, give a row the same bits in every cut, and how fast each is.
// XDIT_PROBE_SECONDS (15) is what one convolution shape may take.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>

#include "nn/attention_by_products.h"
#include "nn/cudnn_convolution.h"
#include "tests/catch.h"
#include "tests/nn/convolution_shapes.h"
#include "tests/nn/timing.h"
#include "tests/tensors.h"

namespace xdit::nn {
namespace {

double probe_seconds() {
  static const auto start = std::chrono::steady_clock::now();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

at::Tensor on_gpu(at::IntArrayRef shape, at::ScalarType type, double scale = 1) {
  const at::Tensor x = (at::randn(shape, at::TensorOptions().device("cuda:0")) * scale).to(type);
  return x.dim() == 4 ? x.contiguous(at::MemoryFormat::ChannelsLast) : x;
}

struct Candidate {
  std::string name;
  std::unique_ptr<cudnn::Plan> plan;
  double build_ms = 0;
  double us = 0;
  double error = 0;
};

struct Inputs {
  at::Tensor x, weight, bias, picture;
};

at::Tensor run(const cudnn::Plan& plan, const cudnn::Shape& shape, std::int64_t rows, const Inputs& a) {
  at::Tensor y = at::empty({1, shape.outputs, rows, shape.output_columns()},
                           a.x.options().memory_format(at::MemoryFormat::ChannelsLast));
  plan({y, a.x, a.weight, a.bias, a.picture});
  return y;
}

// "exact", or where it is not.
std::string in_cuts(const cudnn::Shape& shape, std::int64_t rows, const Candidate& candidate,
                    const Inputs& a) {
  const at::Tensor whole = run(*candidate.plan, shape, rows, a);
  if (!at::equal(whole, run(*candidate.plan, shape, rows, a))) return "NOT THE SAME TWICE";
  std::string faults;
  for (const std::int64_t count : test::cut_heights(rows)) {
    std::string why;
    const auto plan = cudnn::Plan::build(shape, {.rows = count}, candidate.name, &why);
    if (!plan) {
      faults += fmt::format(" {}(unsupported)", count);
      continue;
    }
    for (const std::int64_t first : {std::int64_t{0}, (rows - count) / 3, rows - count}) {
      const auto cut = [&](const at::Tensor& t, std::int64_t height) {
        return t.narrow(2, first, height).contiguous(at::MemoryFormat::ChannelsLast);
      };
      const at::Tensor part = run(*plan, shape, count,
                                  {cut(a.x, count + shape.kernel - 1), a.weight, a.bias,
                                   a.picture.defined() ? cut(a.picture, count) : a.picture});
      if (!at::equal(part, whole.narrow(2, first, count))) {
        faults += fmt::format(" {}", count);
        break;
      }
    }
  }
  return faults.empty() ? "exact" : fmt::format("DIFFERS at{}", faults);
}

cudnn::Shape shape_of(const test::ConvolutionShape& s, at::ScalarType type, cudnn::Epilogue epilogue) {
  return {.inputs = s.inputs,
          .outputs = s.outputs,
          .kernel = s.kernel,
          .columns = s.columns,
          .stride = s.stride,
          .type = type,
          .epilogue = epilogue};
}

// Without a picture to add.
Inputs inputs_of(const test::ConvolutionShape& s, at::ScalarType type, std::int64_t pictures) {
  const double scale = 1 / std::sqrt(static_cast<double>(s.inputs * s.kernel * s.kernel));
  return {.x = on_gpu({pictures, s.inputs, s.input_rows(s.rows), s.columns}, type),
          .weight = on_gpu({s.outputs, s.inputs, s.kernel, s.kernel}, type, scale),
          .bias = on_gpu({s.outputs}, type),
          .picture = {}};
}

void probe(const test::ConvolutionShape& s, at::ScalarType type, cudnn::Epilogue epilogue, double seconds) {
  const double start = probe_seconds();
  const cudnn::Shape shape = shape_of(s, type, epilogue);
  Inputs a = inputs_of(s, type, 1);
  if (epilogue == cudnn::Epilogue::kBiasAndPicture)
    a.picture = on_gpu({1, s.outputs, s.rows, s.columns}, type);
  const auto torch = [&] {
    const at::Tensor y = at::conv2d(a.x, a.weight, epilogue == cudnn::Epilogue::kNone ? at::Tensor() : a.bias,
                                    1, at::IntArrayRef({0, s.kernel / 2}));
    return a.picture.defined() ? y + a.picture : y;
  };
  const at::Tensor reference = torch();
  const char* epilogues[] = {"alone", "with bias", "with bias and picture"};
  std::printf("\n== %ld -> %ld, k %ld, %ld x %ld %s %s: at::conv2d %.1f us\n", s.inputs, s.outputs, s.kernel,
              s.rows, s.columns, at::toString(type), epilogues[static_cast<int>(epilogue)],
              test::microseconds([&] { static_cast<void>(torch()); }));
  std::vector<std::string> names = cudnn::plan_names(shape, {.rows = s.rows});
  const auto of_62 = [](const std::string& name) { return name.starts_with("eng62_"); };
  std::printf("%zu plans listed, %td of engine 62, after %.2f s\n", names.size(),
              std::count_if(names.begin(), names.end(), of_62), probe_seconds() - start);
  std::stable_partition(names.begin(), names.end(), of_62);
  std::vector<Candidate> candidates;
  std::size_t tried = 0;
  for (; tried < names.size() && probe_seconds() - start < seconds / 2; ++tried) {
    const double before = probe_seconds();
    std::string why;
    Candidate c{names[tried], cudnn::Plan::build(shape, {.rows = s.rows}, names[tried], &why)};
    if (!c.plan) {
      std::printf("  %s: %s\n", c.name.c_str(), why.substr(0, 100).c_str());
      continue;
    }
    c.build_ms = 1000 * (probe_seconds() - before);
    c.error = test::relative_error(run(*c.plan, shape, s.rows, a).narrow(2, 0, 4), reference.narrow(2, 0, 4));
    c.us = test::microseconds([&] { static_cast<void>(run(*c.plan, shape, s.rows, a)); }, 5);
    candidates.push_back(std::move(c));
  }
  std::printf("%zu of them tried\n", tried);
  std::sort(candidates.begin(), candidates.end(), [](const auto& x, const auto& y) { return x.us < y.us; });
  for (const Candidate& c : candidates) {
    const bool in_time = probe_seconds() - start < seconds;
    std::printf("  %8.1f us  %-60s built in %5.0f ms, workspace %6.1f MB, error %.1e  %s\n", c.us,
                c.name.c_str(), c.build_ms, static_cast<double>(c.plan->workspace_bytes()) / 1e6, c.error,
                in_time ? in_cuts(shape, s.rows, c, a).c_str() : "no time left");
    std::fflush(stdout);
  }
}

TEST_CASE("cuDNN's plans for the decoder's convolutions", "[.probe]") {
  at::globalContext().setDeterministicCuDNN(true);
  const char* limit = std::getenv("XDIT_PROBE_SECONDS");
  const double seconds = limit != nullptr ? std::atof(limit) : 15;
  std::printf("GPU: %s\n", at::cuda::getCurrentDeviceProperties()->name);
  using cudnn::Epilogue;
  for (const Epilogue epilogue : {Epilogue::kBias, Epilogue::kNone, Epilogue::kBiasAndPicture})
    for (test::ConvolutionShape s : test::kVaeShapes) {
      if (s.kernel == 1) continue;  // a linear
      s.outputs = std::max<std::int64_t>(s.outputs, 8);
      probe(s, at::kBFloat16, epilogue, seconds);
    }
  probe({128, 3, 3, 1024, 1024}, at::kBFloat16, Epilogue::kBias, seconds);
  probe({512, 512, 3, 256, 256}, at::kHalf, Epilogue::kBias, seconds);
  probe({128, 128, 3, 1024, 1024}, at::kHalf, Epilogue::kBias, seconds);
}

// Whether plans of different tiles give the same bits, for one picture and for two, and how fast each is.
void probe_pictures(test::ConvolutionShape s, cudnn::Epilogue epilogue, at::ScalarType type) {
  s.inputs = std::max<std::int64_t>(s.inputs, 8);
  s.outputs = std::max<std::int64_t>(s.outputs, 8);
  const cudnn::Shape shape = shape_of(s, type, epilogue);
  const Inputs in = inputs_of(s, type, 2);
  std::printf("\n== %ld -> %ld, k %ld, %ld x %ld, stride %ld, %s %s\n", shape.inputs, shape.outputs, s.kernel,
              s.rows, s.columns, s.stride, at::toString(type),
              epilogue == cudnn::Epilogue::kNone ? "alone" : "with bias");
  const cudnn::Extent one{.rows = s.rows}, two{.rows = s.rows, .pictures = 2};
  std::vector<std::string> names = cudnn::plan_names(shape, one);
  const std::vector<std::string> of_two = cudnn::plan_names(shape, two);
  names.insert(names.end(), of_two.begin(), of_two.end());
  std::map<std::string, at::Tensor> first;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if ((!name.starts_with("eng41_") && !name.starts_with("eng62_")) ||
        (name + "_").find("_k25=1_") == std::string::npos || !seen.insert(name).second)
      continue;
    const std::string family =
        name.substr(0, 5) + ((name + "_").find("_k13=1_") != std::string::npos ? " 1" : " 0");
    std::string text;
    for (const cudnn::Extent& extent : {one, two}) {
      std::string why;
      const auto plan = cudnn::Plan::build(shape, extent, name, &why);
      if (!plan) {
        text += "  no";
        continue;
      }
      const at::Tensor y = at::empty({extent.pictures, shape.outputs, s.rows, shape.output_columns()},
                                     in.x.options().memory_format(at::MemoryFormat::ChannelsLast));
      const auto go = [&] {
        (*plan)({y, in.x.narrow(0, 2 - extent.pictures, extent.pictures), in.weight, in.bias});
      };
      go();
      at::Tensor& of = first[family];
      if (!of.defined()) of = y.narrow(0, extent.pictures - 1, 1).clone();
      const bool same = at::equal(y.narrow(0, extent.pictures - 1, 1), of);
      text += fmt::format("  {:7.1f} us {}", test::microseconds(go, 20), same ? "same" : "DIFFERS");
    }
    const auto at = [&](const std::vector<std::string>& of) {
      return std::find(of.begin(), of.end(), name) - of.begin();
    };
    std::printf("  %-46s%s  (%td of one, %td of two)\n", name.c_str(), text.c_str(), at(names), at(of_two));
  }
  for (const auto& [family, y] : first)
    std::printf("  %s equals the first: %d\n", family.c_str(),
                static_cast<int>(at::equal(y, first.begin()->second)));
}

TEST_CASE("cuDNN's plans for a UNet's convolutions", "[.probe]") {
  at::globalContext().setDeterministicCuDNN(true);
  for (const test::ConvolutionShape& s : test::kUnetShapes)
    if (s.kernel > 1)
      for (const cudnn::Epilogue epilogue : {cudnn::Epilogue::kBias, cudnn::Epilogue::kNone})
        probe_pictures(s, epilogue, at::kHalf);
}

TEST_CASE("the decoder's attention", "[.probe]") {
  const std::int64_t dim = 512;
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  using Way = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>;
  const auto head = [](const at::Tensor& t) { return t.view({1, 1, t.size(0), t.size(1)}); };
  std::vector<std::pair<std::string, Way>> ways{
      {"Torch's choice",
       [&](const auto& q, const auto& k, const auto& v) {
         return at::scaled_dot_product_attention(head(q), head(k), head(v), {}, 0, false, scale)[0][0];
       }},
      {"memory-efficient",
       [&](const auto& q, const auto& k, const auto& v) {
         return std::get<0>(at::_scaled_dot_product_efficient_attention(head(q), head(k), head(v), {}, false,
                                                                        0, false, scale))[0][0];
       }},
      {"cuDNN", [&](const auto& q, const auto& k, const auto& v) {
         return std::get<0>(at::_scaled_dot_product_cudnn_attention(head(q), head(k), head(v), {}, false, 0,
                                                                    false, false, scale))[0][0];
       }}};
  for (const std::int64_t tile : {1024, 2048, 4096, 8192})
    ways.emplace_back(
        fmt::format("products of {} rows", tile), [=](const auto& q, const auto& k, const auto& v) {
          return attention_by_products(head(q), head(k), head(v), scale, /*tf32=*/false, tile)[0][0];
        });
  for (const std::int64_t tokens : {4096, 16384}) {
    const at::Tensor q = 3 * on_gpu({tokens, dim}, at::kBFloat16), k = on_gpu({tokens, dim}, at::kBFloat16),
                     v = on_gpu({tokens, dim}, at::kBFloat16);
    const at::Tensor few = q.narrow(0, 0, 64).to(at::kDouble);
    const at::Tensor exact = at::softmax(few.mm(k.to(at::kDouble).t()) * scale, -1).mm(v.to(at::kDouble));
    for (const auto& [name, way] : ways) {
      std::printf("attention of %ld tokens of %ld, %s: ", tokens, dim, name.c_str());
      try {
        const at::Tensor whole = way(q, k, v);
        std::string faults;
        for (const std::int64_t columns : {64, 128})  // rows of tokens
          for (const std::int64_t rows : test::cut_heights(tokens / columns))
            for (const std::int64_t first : {std::int64_t{0}, tokens / columns - rows}) {
              const at::Tensor part = way(q.narrow(0, first * columns, rows * columns), k, v);
              if (!at::equal(part, whole.narrow(0, first * columns, rows * columns)))
                faults += fmt::format(" {}", rows * columns);
            }
        std::printf("%.1f us, error %.2e, %s\n", test::microseconds([&] { static_cast<void>(way(q, k, v)); }),
                    test::relative_error(whole.narrow(0, 0, 64), exact),
                    faults.empty() ? "exact" : fmt::format("DIFFERS at{}", faults).c_str());
      } catch (const std::exception& error) {
        std::printf("%s\n", std::string(error.what()).substr(0, 120).c_str());
      }
    }
  }
}

}  // namespace
}  // namespace xdit::nn
