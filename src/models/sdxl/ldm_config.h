#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>

#include "models/part_shapes.h"

/// The config.json of diffusers' and transformers' classes, as far as shapes say it.
namespace xdit::models {

/// Of a UNet2DConditionModel in latent diffusion's layout. `pooled_width`: of the embedding that stands
/// beside the embedded `size_ids`, where it takes any.
[[nodiscard]] nlohmann::json ldm_unet_config(const PartShapes& unet, std::int64_t pooled_width,
                                             std::int64_t size_ids);
/// Of an AutoencoderKL's decoder in latent diffusion's layout.
[[nodiscard]] nlohmann::json ldm_vae_config(const PartShapes& vae);
/// Of a CLIPTextModel, by diffusers' names.
[[nodiscard]] nlohmann::json clip_config(const PartShapes& clip);

}  // namespace xdit::models
