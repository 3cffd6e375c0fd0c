#include "nn/weights.h"

#include <ATen/ATen.h>

#include <fmt/format.h>

#include "core/error.h"

namespace xdit::nn {

at::Tensor ResidentWeights::get(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    broken_invariant(fmt::format("the parameter {} is in the table", name).c_str(), __FILE__, __LINE__);
  return found->second;
}

}  // namespace xdit::nn
