#include "nn/linear.h"

#include <ATen/ATen.h>

#include <utility>

#include "nn/tiles.h"

namespace xdit::nn {
namespace {

class LocalLinear final : public Linear {
 public:
  LocalLinear(at::Tensor weight, at::Tensor bias) : weight_(std::move(weight)), bias_(std::move(bias)) {}

  at::Tensor operator()(const at::Tensor& x) const override { return linear(x, weight_, bias_); }

  at::Tensor operator()(const at::Tensor& x, Activation activation) const override {
    // cuBLASLt computes this pair in the epilogue of the product.
    const bool fused = activation == Activation::kGeluTanh && x.is_cuda() && x.dim() == 2 && bias_.defined();
    if (fused) return at::_addmm_activation(bias_, x, weight_.t(), 1, 1, /*use_gelu=*/true);
    if (x.is_cpu()) return tiles::linear(x, weight_, bias_, &activation);
    return activate((*this)(x), activation);
  }

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return x.is_cpu() ? tiles::linear(x, weight, bias) : at::linear(x, weight, bias);
}

at::Tensor linear_partial(const at::Tensor& x, const at::Tensor& weight) {
  return nn::linear(x.to(at::kFloat), weight.to(at::kFloat));
}

std::unique_ptr<Linear> LocalLinears::make(const Weights& weights, const std::string& name, bool bias) const {
  return std::make_unique<LocalLinear>(weights.get(name + ".weight"),
                                       bias ? weights.get(name + ".bias") : at::Tensor());
}

}  // namespace xdit::nn
