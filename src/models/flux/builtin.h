#pragma once
#include <string>
#include <vector>

#include "weights/model_files.h"

namespace xdit::models {

/// FLUX.1-dev and FLUX.1-schnell as published, without files: for runs whose weights are drawn (--load-format
/// dummy).
[[nodiscard]] std::vector<std::string> flux_builtin_names();
/// By name, in any case, with or without "black-forest-labs/"; false when it is none of them.
[[nodiscard]] bool flux_builtin(const std::string& name, weights::ModelFiles& files);

}  // namespace xdit::models
