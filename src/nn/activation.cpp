#include "nn/activation.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/nearest.h"

namespace xdit::nn {
namespace {

constexpr std::array<std::pair<std::string_view, Activation>, 9> kNames{{
    {"gelu", Activation::kGelu},
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"quick_gelu", Activation::kQuickGelu},
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"relu", Activation::kRelu},
    {"gelu-approximate", Activation::kGeluTanh},
}};

}  // namespace

Activation activation_from_name(std::string_view name) {
  std::vector<std::string> known;
  for (const auto& [known_name, activation] : kNames) {
    if (known_name == name) return activation;
    known.emplace_back(known_name);
  }
  throw Error(ExitCode::kModel, fmt::format("unknown activation '{}'", name), {}, suggest(name, known));
}

at::Tensor activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kQuickGelu:
      return x * at::sigmoid(x * 1.702);
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kRelu:
      return at::relu(x);
  }
  broken_invariant("the activation is known", __FILE__, __LINE__);
}

}  // namespace xdit::nn
