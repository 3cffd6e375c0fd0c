#include "nn/cudnn_convolution.h"

#include "core/error.h"

namespace xdit::nn::cudnn {

struct Plan::Built {};
Plan::~Plan() = default;

std::vector<std::string> plan_names(const Shape& /*shape*/, std::int64_t /*rows*/) {
  return {};
}

std::unique_ptr<Plan> Plan::build(const Shape& /*shape*/, std::int64_t /*rows*/, const std::string& /*name*/,
                                  std::string* why) {
  if (why != nullptr) *why = "a build without CUDA";
  return nullptr;
}

void Plan::operator()(const at::Tensor& /*y*/, const at::Tensor& /*x*/, const at::Tensor& /*weight*/,
                      const at::Tensor& /*bias*/, const at::Tensor& /*picture*/) const {
  broken_invariant("no plan was built", __FILE__, __LINE__);
}

std::int64_t Plan::workspace_bytes() const {
  return 0;
}

}  // namespace xdit::nn::cudnn
