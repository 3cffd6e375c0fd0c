#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "nn/linear.h"
#include "nn/weights.h"

namespace xdit::models {

/// diffusers' TimestepEmbedding: linear_2(silu(linear_1(x))).
class Embedder {
 public:
  Embedder(const nn::Weights& weights, const nn::Linears& linears, const std::string& name)
      : in_(linears.make(weights, name + ".linear_1", true)),
        out_(linears.make(weights, name + ".linear_2", true)) {}
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const {
    return (*out_)((*in_)(x, nn::Activation::kSilu));
  }

 private:
  std::unique_ptr<nn::Linear> in_;
  std::unique_ptr<nn::Linear> out_;
};

}  // namespace xdit::models
