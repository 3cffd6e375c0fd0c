#include "weights/parameter_list.h"

#include <numeric>
#include <utility>

namespace xdit::weights {

void ParameterList::tensor(const std::string& name, std::vector<std::int64_t> shape) {
  parameters_.push_back(parameter(name, std::move(shape), block_));
}

void ParameterList::linear(const std::string& name, std::int64_t inputs, std::int64_t outputs, bool bias) {
  tensor(name + ".weight", {outputs, inputs});
  if (bias) tensor(name + ".bias", {outputs});
}

void ParameterList::pixel_linear(const std::string& name, std::int64_t inputs, std::int64_t outputs) {
  tensor(name + ".weight", {outputs, inputs, 1, 1});
  parameters_.back().shape = {outputs, inputs};
  tensor(name + ".bias", {outputs});
}

void ParameterList::cut_outputs(const std::string& name, std::int64_t inputs, std::int64_t outputs) {
  stacked(name, {{name, outputs}}, inputs, true, Cut::kOutputs);
}

void ParameterList::cut_inputs(const std::string& name, const std::vector<std::int64_t>& inputs,
                               std::int64_t outputs) {
  tensor(name + ".weight", {outputs, std::reduce(inputs.begin(), inputs.end())});
  parameters_.back().cut = Cut::kInputs;
  parameters_.back().inputs = inputs;
  tensor(name + ".bias", {outputs});
}

void ParameterList::stacked(const std::string& name, const std::vector<StackedPart>& parts,
                            std::int64_t inputs, bool bias, Cut cut) {
  std::vector<Wanted> weights;
  std::vector<Wanted> biases;
  for (const StackedPart& part : parts) {
    const std::int64_t block = part.block == kNoBlock ? block_ : part.block;
    weights.push_back({part.name + ".weight", {part.outputs, inputs}, block});
    biases.push_back({part.name + ".bias", {part.outputs}, block});
  }
  const auto add = [&](const char* kind, std::vector<Wanted> wanted) {
    parameters_.push_back(weights::stacked(name + kind, std::move(wanted)));
    parameters_.back().cut = cut;
  };
  add(".weight", std::move(weights));
  if (bias) add(".bias", std::move(biases));
}

void ParameterList::stacked_in_pieces(const std::string& name, const std::vector<StackedPart>& parts,
                                      std::int64_t inputs, std::int64_t piece) {
  const std::size_t weight = parameters_.size();
  stacked(name, parts, inputs);
  parameters_[weight].piece_rows = piece;
}

void ParameterList::norm(const std::string& name, std::int64_t width, bool bias) {
  tensor(name + ".weight", {width});
  if (bias) tensor(name + ".bias", {width});
}

void ParameterList::convolution(const std::string& name, std::int64_t inputs, std::int64_t outputs,
                                std::int64_t kernel) {
  tensor(name + ".weight", {outputs, inputs, kernel, kernel});
  tensor(name + ".bias", {outputs});
}

}  // namespace xdit::weights
