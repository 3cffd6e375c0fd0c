#pragma once
#include "models/registry.h"

namespace xdit::models {

/// Fills networks, shape and defaults of a FluxPipeline; Error(kModel) where its parts do not fit each other.
void describe_flux(Model& model);

}  // namespace xdit::models
