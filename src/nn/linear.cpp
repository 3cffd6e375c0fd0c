#include "nn/linear.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/error.h"
#include "nn/fused.h"
#include "nn/ops.h"
#include "nn/tiles.h"

namespace xdit::nn {
namespace {

// [..., K] as [M, K].
at::Tensor as_rows(const at::Tensor& x) {
  return x.dim() == 2 ? x : x.reshape({-1, x.size(-1)});
}

Rows rows_for(const Rows& x, const Rows& weight) {
  if (x.quantised()) return x;
  return weight.quantised() ? quantise_rows(as_rows(x.values)) : as_rows(x.values);
}

// x W^T in float32, on the CPU.
at::Tensor wide_product(const Rows& x, const Rows& weight) {
  const at::Tensor product = tiles::linear(x.values.to(at::kFloat), weight.values.to(at::kFloat), {});
  return weight.quantised() ? scaled(product, x, weight) : product;
}

class LocalLinear final : public Linear {
 public:
  LocalLinear(Rows weight, at::Tensor bias) : weight_(std::move(weight)), bias_(std::move(bias)) {}

  at::Tensor operator()(const Rows& x) const override { return compute(x, nullptr); }
  at::Tensor operator()(const Rows& x, Activation activation) const override {
    return compute(x, &activation);
  }

  void into(const at::Tensor& y, const Rows& x) const override {
    if (y.is_cuda())
      fused::linear_into(y, rows_for(x, weight_), weight_, bias_, /*gelu_tanh=*/false);
    else
      Linear::into(y, x);
  }
  void into(const at::Tensor& y, const Rows& x, Activation activation) const override {
    if (y.is_cuda() && activation == Activation::kGeluTanh)
      fused::linear_into(y, rows_for(x, weight_), weight_, bias_, /*gelu_tanh=*/true);
    else
      Linear::into(y, x, activation);
  }

  void onto(const at::Tensor& y, const Rows& x) const override {
    if (y.is_cuda())
      fused::linear_onto(y, rows_for(x, weight_), weight_, bias_);
    else
      Linear::onto(y, x);
  }

  [[nodiscard]] std::int64_t outputs() const override { return weight_.values.size(0); }
  [[nodiscard]] bool quantised() const override { return weight_.quantised(); }

 private:
  [[nodiscard]] at::Tensor compute(const Rows& x, const Activation* activation) const {
    XDIT_ASSERT(!x.quantised() || weight_.quantised());
    const bool cpu = x.values.is_cpu();
    if (cpu && !weight_.quantised()) return tiles::linear(x.values, weight_.values, bias_, activation);
    const bool gelu = !cpu && activation != nullptr && *activation == Activation::kGeluTanh;
    const Rows rows = rows_for(x, weight_);
    const at::ScalarType type = x.quantised() ? at::kBFloat16 : x.values.scalar_type();
    const at::Tensor y = cpu ? with_bias(wide_product(rows, weight_)).to(type)
                             : fused::linear(rows, weight_, bias_, gelu, type);
    if (activation != nullptr && !gelu) activate_into(y, y, *activation);
    std::vector<std::int64_t> shape = x.values.sizes().vec();
    shape.back() = outputs();
    return y.view(shape);
  }
  [[nodiscard]] at::Tensor with_bias(const at::Tensor& y) const { return bias_.defined() ? y + bias_ : y; }

  Rows weight_;
  at::Tensor bias_;
};

}  // namespace

void Linear::into(const at::Tensor& y, const Rows& x) const {
  y.copy_((*this)(x));
}
void Linear::into(const at::Tensor& y, const Rows& x, Activation activation) const {
  y.copy_((*this)(x, activation));
}
void Linear::onto(const at::Tensor& y, const Rows& x) const {
  y.add_((*this)(x));
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return LocalLinear({weight}, bias)(x);
}

Rows matrix_of(const Weights& weights, const std::string& name) {
  const at::Tensor values = weights.get(name + ".weight");
  if (values.scalar_type() != at::kFloat8_e4m3fn) return {values};
  return {values, weights.get(name + ".weight_scale")};
}

at::Tensor linear_partial(const Rows& x, const Rows& weight, bool tf32) {
  const Rows rows = rows_for(x, weight);
  return rows.values.is_cpu() ? wide_product(rows, weight)
                              : fused::linear(rows, weight, {}, /*gelu_tanh=*/false, at::kFloat, tf32);
}

std::unique_ptr<Linear> LocalLinears::make(const Weights& weights, const std::string& name, bool bias) const {
  return std::make_unique<LocalLinear>(matrix_of(weights, name),
                                       bias ? weights.get(name + ".bias") : at::Tensor());
}

}  // namespace xdit::nn
