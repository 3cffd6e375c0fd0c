#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "nn/activation.h"
#include "nn/quantise.h"
#include "nn/weights.h"

namespace xdit::nn {

/// x W^T + b: [..., in] -> [..., out]; `bias` may be undefined. A row's bits do not depend on the other rows.
[[nodiscard]] at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// W [out, in] of the linear `name`, as it is held: quantised where `name`.weight_scale is.
[[nodiscard]] Rows matrix_of(const Weights& weights, const std::string& name);

/// x W^T in float32, for products of which others add their part before they are rounded. `tf32`: on a GPU,
/// of factors in float32 rounded to TF32.
[[nodiscard]] at::Tensor linear_partial(const Rows& x, const Rows& weight, bool tf32 = false);

/// y = act(x W^T + b): [..., in] -> [..., out]; quantised rows [T, in] stand for what they were made of.
class Linear {
 public:
  Linear() = default;
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;
  virtual ~Linear() = default;
  [[nodiscard]] virtual at::Tensor operator()(const Rows& x) const = 0;
  [[nodiscard]] virtual at::Tensor operator()(const Rows& x, Activation activation) const = 0;
  /// The same of x [T, in] into y [T, out], whose rows may be strided.
  virtual void into(const at::Tensor& y, const Rows& x) const;
  virtual void into(const at::Tensor& y, const Rows& x, Activation activation) const;
  /// y += x W^T + b, likewise; rounded once where a kernel can.
  virtual void onto(const at::Tensor& y, const Rows& x) const;
  [[nodiscard]] virtual std::int64_t outputs() const = 0;
  [[nodiscard]] virtual bool quantised() const = 0;  ///< it multiplies quantised rows
};

/// Makes a network's linears from `name`.weight and, where the network has it, `name`.bias.
class Linears {
 public:
  Linears() = default;
  Linears(const Linears&) = delete;
  Linears& operator=(const Linears&) = delete;
  virtual ~Linears() = default;
  [[nodiscard]] virtual std::unique_ptr<Linear> make(const Weights& weights, const std::string& name,
                                                     bool bias) const = 0;
};

/// The whole of W on this rank.
class LocalLinears final : public Linears {
 public:
  [[nodiscard]] std::unique_ptr<Linear> make(const Weights& weights, const std::string& name,
                                             bool bias) const override;
};

}  // namespace xdit::nn
