#include "parallel/tensor_linear.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"
#include "parallel/device_stream.h"
#include "parallel/plan_parameters.h"

namespace xdit::parallel {
namespace {

constexpr std::string_view kWeight = ".weight";

class InputCutLinear final : public nn::Linear {
 public:
  InputCutLinear(const TensorLinears& ranks, nn::Rows weight, at::Tensor bias)
      : ranks_(ranks), weight_(std::move(weight)), bias_(std::move(bias)) {}

  at::Tensor operator()(const nn::Rows& x) const override {
    return ranks_.sum(nn::linear_partial(x, weight_), bias_);
  }
  at::Tensor operator()(const nn::Rows& x, nn::Activation activation) const override {
    return nn::activate((*this)(x), activation);
  }
  [[nodiscard]] std::int64_t outputs() const override { return weight_.values.size(0); }
  [[nodiscard]] bool quantised() const override { return weight_.quantised(); }

 private:
  const TensorLinears& ranks_;
  nn::Rows weight_;
  at::Tensor bias_;
};

}  // namespace

TensorLinears::TensorLinears(comm::Group& group, const models::Network& network, std::int64_t rows,
                             at::TensorOptions options)
    : group_(group), options_(options) {
  for (const weights::Parameter& parameter : network.parameters) {
    if (parameter.cut != weights::Cut::kInputs) continue;
    cut_inputs_.insert(parameter.name.substr(0, parameter.name.size() - kWeight.size()));
    width_ = std::max(width_, parameter.shape.front());
  }
  const std::int64_t ranks = group.size();
  const std::int64_t share = part_of(rows, ranks, 0).count;
  staging_ = group.allocate(ranks * share * width_ * static_cast<std::int64_t>(sizeof(float)));
  for (auto& result : results_)
    result = std::make_shared<comm::PeerBuffer>(
        group.allocate(rows * width_ * static_cast<std::int64_t>(options.dtype().itemsize())));
}

std::unique_ptr<nn::Linear> TensorLinears::make(const nn::Weights& weights, const std::string& name,
                                                bool bias) const {
  if (!cut_inputs_.contains(name)) return nn::LocalLinears().make(weights, name, bias);
  return std::make_unique<InputCutLinear>(*this, nn::matrix_of(weights, name),
                                          bias ? weights.get(name + ".bias") : at::Tensor());
}

at::Tensor TensorLinears::sum(const at::Tensor& product, const at::Tensor& bias) const {
  const std::int64_t rows = product.size(0);
  const std::int64_t width = product.size(1);
  const comm::Stream stream = current_stream(options_.device());
  std::vector<comm::Range> elements;
  std::vector<comm::Range> bytes;
  const std::int64_t row = width * static_cast<std::int64_t>(options_.dtype().itemsize());
  for (std::int64_t i = 0; i < group_.size(); ++i) {
    const comm::Range part = part_of(rows, group_.size(), i);
    elements.push_back({part.first * width, part.count * width});
    bytes.push_back({part.first * row, part.count * row});
  }
  at::Tensor mine = at::empty({part_of(rows, group_.size(), group_.rank()).count, width}, product.options());
  group_.sum(product.const_data_ptr<float>(), elements, *staging_, mine.mutable_data_ptr<float>(), stream);
  if (bias.defined()) mine += bias.to(at::kFloat);
  mine = mine.to(options_.dtype());
  const auto free = std::find_if(results_.begin(), results_.end(),
                                 [](const auto& result) { return result.use_count() == 1; });
  XDIT_ASSERT(free != results_.end());  // one waits for its norm while the next is made: FLUX's text's, too
  group_.all_gather_v(mine.const_data_ptr(), bytes, **free, stream);
  return at::from_blob((*free)->data(), {rows, width}, [held = *free](void*) {}, options_);
}

}  // namespace xdit::parallel
