#pragma once
#include <string>

#include "weights/model_files.h"

namespace xdit::weights {

/// Which files the model is made of and when they were written last: another text once any of them, or of its
/// tokenizers', has changed.
[[nodiscard]] std::string model_stamp(const ModelFiles& files);

}  // namespace xdit::weights
