#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "models/registry.h"
#include "nn/weights.h"
#include "parallel/load.h"

namespace xdit::test {

inline const std::filesystem::path kFlux = std::filesystem::path(XDIT_TEST_DATA) / "flux";
inline const std::filesystem::path kSd = std::filesystem::path(XDIT_TEST_DATA) / "sd";

/// A component's weights of an opened model, as a run in `dtype` holds them.
inline nn::ResidentWeights load(const models::Model& model, const std::string& component,
                                at::ScalarType dtype, at::Device device = at::kCPU) {
  const auto network = std::find_if(model.networks.begin(), model.networks.end(),
                                    [&](const models::Network& n) { return n.component == component; });
  std::uint64_t bytes = 0;
  return nn::ResidentWeights(
      parallel::load_whole(model, *network, parallel::held_dtype(*network, dtype), device, 2, bytes));
}

}  // namespace xdit::test
