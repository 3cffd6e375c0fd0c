#pragma once
#include <nlohmann/json.hpp>

#include "weights/key_map.h"
#include "weights/model_files.h"

namespace xdit::models {

/// Whether a file holds a FLUX transformer in black-forest-labs' layout, with or without
/// `model.diffusion_model.` before its names.
[[nodiscard]] bool is_bfl(const weights::TensorTable& table);

/// diffusers' names -> black-forest-labs' tensors: fused rows (qkv, linear1) are slices, and the last
/// modulation holds shift before scale where diffusers holds scale before shift. Sizes come from the shapes.
[[nodiscard]] weights::KeyMap bfl_key_map(const weights::TensorTable& table);

/// The config.json of diffusers' FluxTransformer2DModel that the shapes say. The rotary axes are not in the
/// file: those of `base_config` (null, or another FLUX transformer's) when its heads have the same size, else
/// the published proportions 1/8, 7/16, 7/16. Error(kModel) when neither fits.
[[nodiscard]] nlohmann::json bfl_config(const weights::TensorTable& table, const nlohmann::json& base_config);

/// All of it: the "transformer" of a single file.
[[nodiscard]] weights::Component bfl_transformer(weights::TensorTable table,
                                                 const nlohmann::json& base_config);

}  // namespace xdit::models
