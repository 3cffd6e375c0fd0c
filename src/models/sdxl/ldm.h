#pragma once
#include "weights/model_files.h"

namespace xdit::models {

/// Whether a file holds a UNet as latent diffusion names it: Stable Diffusion or SDXL in one file.
[[nodiscard]] bool is_ldm(const weights::TensorTable& table);

/// Makes its networks components, in place of a base folder's. Sizes come from the shapes; what shapes do not
/// say (heads, groups, activations, the scheduler) from the base's configs where those have the same widths,
/// else from what all published models share: heads of 64 channels (Stable Diffusion 1: 8 heads), 32 groups.
/// Error(kModel) at what makes no picture from a text alone.
void open_ldm(weights::ModelFiles& files);

}  // namespace xdit::models
