#pragma once
#include <ATen/core/Tensor.h>

#include "config/run_spec.h"
#include "pipeline/course.h"
#include "pipeline/rank.h"

namespace xdit::pipeline {

/// Writes image [3, H, W] in 0..1 to the picture's path, with what made it as text. Error(kOutput).
void write_picture(const RankJob& job, const Course& course, const config::Picture& picture,
                   const at::Tensor& image);

}  // namespace xdit::pipeline
