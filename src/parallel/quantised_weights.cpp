#include "parallel/quantised_weights.h"

#include <ATen/ATen.h>

#include <utility>

#include "parallel/plan_weights.h"

namespace xdit::parallel {

QuantisedWeights::QuantisedWeights(const Plan& plan, const Loading& loading, Tensors& tensors) {
  for (const HeldParameter& held : loading.held) {
    if (!is_quantised(plan, loading.network, held)) continue;
    at::Tensor& tensor = tensors.at(held.name);
    const at::TensorOptions options = tensor.options();
    const nn::Rows rows{at::empty(held.shape, options.dtype(at::kFloat8_e4m3fn)),
                        at::empty({held.shape.front()}, options.dtype(at::kFloat))};
    matrices_.push_back({std::exchange(tensor, rows.values), rows});
    tensors.emplace(held.name + "_scale", rows.scales);
  }
}

void QuantisedWeights::quantise() const {
  for (const Matrix& matrix : matrices_) nn::quantise_rows(matrix.read, matrix.held);
}

}  // namespace xdit::parallel
