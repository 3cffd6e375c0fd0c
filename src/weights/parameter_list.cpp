#include "weights/parameter_list.h"

#include <utility>

namespace xdit::weights {

void ParameterList::tensor(const std::string& name, std::vector<std::int64_t> shape) {
  parameters_.push_back(parameter(name, std::move(shape)));
}

void ParameterList::linear(const std::string& name, std::int64_t inputs, std::int64_t outputs, bool bias) {
  tensor(name + ".weight", {outputs, inputs});
  if (bias) tensor(name + ".bias", {outputs});
}

void ParameterList::stacked(const std::string& name, const std::vector<StackedPart>& parts,
                            std::int64_t inputs, bool bias) {
  std::vector<Wanted> weights;
  std::vector<Wanted> biases;
  for (const StackedPart& part : parts) {
    weights.push_back({part.name + ".weight", {part.outputs, inputs}});
    biases.push_back({part.name + ".bias", {part.outputs}});
  }
  parameters_.push_back(weights::stacked(name + ".weight", std::move(weights)));
  if (bias) parameters_.push_back(weights::stacked(name + ".bias", std::move(biases)));
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
