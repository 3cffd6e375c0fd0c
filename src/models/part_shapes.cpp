#include "models/part_shapes.h"

#include <fmt/format.h>

#include <algorithm>

#include "weights/describe.h"

namespace xdit::models {

PartShapes::PartShapes(const weights::TensorTable& table, const std::string& prefix) : prefix_(prefix) {
  for (const auto& [name, tensor] : table.tensors)
    if (name.starts_with(prefix)) shapes_[name.substr(prefix.size())] = tensor.shape;
  if (!table.files.empty()) file_ = table.files.front();
}

PartShapes::PartShapes(const weights::TensorTable& table, const weights::KeyMap& keys) {
  for (const auto& [name, slices] : keys)
    if (slices.size() == 1) shapes_[name] = table.tensors.at(slices.front().file_name).shape;
  if (!table.files.empty()) file_ = table.files.front();
}

void PartShapes::fail(const std::string& message, const std::string& fix) const {
  weights::fail_model(file_, message, fix);
}

const std::vector<std::int64_t>& PartShapes::at(const std::string& name) const {
  const auto found = shapes_.find(name);
  if (found == shapes_.end())
    fail(fmt::format("tensor {} is missing", weights::name_text(prefix_ + name)),
         "a complete file of the model");
  return found->second;
}

std::int64_t PartShapes::size(const std::string& name, std::size_t dimension,
                              std::optional<std::size_t> dimensions) const {
  const std::vector<std::int64_t>& shape = at(name);
  if (shape.size() != dimensions.value_or(shape.size()) || dimension >= shape.size() || shape[dimension] < 1)
    fail(fmt::format("tensor {}: expected {}{} dimensions of 1 or more, found {}",
                     weights::name_text(prefix_ + name), dimensions.value_or(dimension + 1),
                     dimensions ? "" : " or more", weights::shape_text(shape)));
  return shape[dimension];
}

const std::vector<std::int64_t>* PartShapes::any(std::string_view end) const {
  const auto found = std::find_if(shapes_.begin(), shapes_.end(),
                                  [&](const auto& entry) { return entry.first.ends_with(end); });
  return found == shapes_.end() ? nullptr : &found->second;
}

std::int64_t PartShapes::count(const std::string& before, const std::string& after) const {
  std::int64_t number = 0;
  while (has(fmt::format("{}{}{}", before, number, after))) ++number;
  return number;
}

}  // namespace xdit::models
