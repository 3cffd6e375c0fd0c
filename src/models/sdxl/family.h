#pragma once
#include "models/registry.h"

namespace xdit::models {

/// Fill networks, shape and defaults of a StableDiffusionXLPipeline, of SDXL's refiner (a
/// StableDiffusionXLImg2ImgPipeline that takes aesthetic scores) and of a StableDiffusionPipeline (1.x
/// and 2.x); Error(kModel) where its parts do not fit each other or make no picture from a text alone.
void describe_sdxl(Model& model);
void describe_refiner(Model& model);
void describe_sd(Model& model);

}  // namespace xdit::models
