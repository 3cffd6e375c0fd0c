#include "nn/linear.h"

#include <ATen/ATen.h>

#include <utility>

#include "nn/fused.h"
#include "nn/tiles.h"

namespace xdit::nn {
namespace {

class LocalLinear final : public Linear {
 public:
  LocalLinear(at::Tensor weight, at::Tensor bias) : weight_(std::move(weight)), bias_(std::move(bias)) {}

  at::Tensor operator()(const at::Tensor& x) const override { return linear(x, weight_, bias_); }

  at::Tensor operator()(const at::Tensor& x, Activation activation) const override {
    if (x.is_cuda() && activation == Activation::kGeluTanh)
      return fused::linear(x, weight_, bias_, /*gelu_tanh=*/true, x.scalar_type());
    if (x.is_cpu()) return tiles::linear(x, weight_, bias_, &activation);
    return activate((*this)(x), activation);
  }

  void into(const at::Tensor& y, const at::Tensor& x) const override {
    if (x.is_cuda())
      fused::linear_into(y, x, weight_, bias_, /*gelu_tanh=*/false);
    else
      Linear::into(y, x);
  }
  void into(const at::Tensor& y, const at::Tensor& x, Activation activation) const override {
    if (x.is_cuda() && activation == Activation::kGeluTanh)
      fused::linear_into(y, x, weight_, bias_, /*gelu_tanh=*/true);
    else
      Linear::into(y, x, activation);
  }

  [[nodiscard]] std::int64_t outputs() const override { return weight_.size(0); }

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

}  // namespace

void Linear::into(const at::Tensor& y, const at::Tensor& x) const {
  y.copy_((*this)(x));
}
void Linear::into(const at::Tensor& y, const at::Tensor& x, Activation activation) const {
  y.copy_((*this)(x, activation));
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return x.is_cpu() ? tiles::linear(x, weight, bias)
                    : fused::linear(x, weight, bias, /*gelu_tanh=*/false, x.scalar_type());
}

at::Tensor linear_partial(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cpu() ? tiles::linear(x.to(at::kFloat), weight.to(at::kFloat), {})
                    : fused::linear(x, weight, {}, /*gelu_tanh=*/false, at::kFloat);
}

std::unique_ptr<Linear> LocalLinears::make(const Weights& weights, const std::string& name, bool bias) const {
  return std::make_unique<LocalLinear>(weights.get(name + ".weight"),
                                       bias ? weights.get(name + ".bias") : at::Tensor());
}

}  // namespace xdit::nn
