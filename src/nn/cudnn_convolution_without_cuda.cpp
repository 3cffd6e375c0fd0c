#include "nn/cudnn_convolution.h"

#include "core/error.h"

namespace xdit::nn::cudnn {

struct Plan::Built {};
Plan::~Plan() = default;

std::vector<std::string> plan_names(const Shape& /*shape*/, const Extent& /*extent*/) {
  return {};
}

std::unique_ptr<Plan> Plan::build(const Shape& /*shape*/, const Extent& /*extent*/,
                                  const std::string& /*name*/, std::string* why) {
  if (why != nullptr) *why = "a build without CUDA";
  return nullptr;
}

void Plan::operator()(const Arguments& /*arguments*/) const {
  broken_invariant("no plan was built", __FILE__, __LINE__);
}

std::int64_t Plan::workspace_bytes() const {
  return 0;
}

bool is_faster(const Plan& /*a*/, const Plan& /*b*/, const Arguments& /*arguments*/) {
  return false;
}

}  // namespace xdit::nn::cudnn
