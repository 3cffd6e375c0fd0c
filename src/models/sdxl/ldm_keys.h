#pragma once
#include <map>
#include <string>

#include "models/sdxl/tables.h"
#include "models/vae/tables.h"
#include "weights/key_map.h"

/// Names in the single files of latent diffusion (CompVis/latent-diffusion openaimodel.py and model.py) and
/// of OpenCLIP (mlfoundations/open_clip transformer.py), beside diffusers'.
namespace xdit::models {

/// A module there -> the same one here: "input_blocks.4.1" -> "down_blocks.1.attentions.0".
using Modules = std::map<std::string, std::string>;

[[nodiscard]] Modules ldm_unet_modules(const UnetConfig& config);
[[nodiscard]] Modules ldm_vae_modules(const VaeConfig& config);
/// transformers' CLIP, also without "text_model." before its names.
[[nodiscard]] Modules clip_modules();
[[nodiscard]] Modules openclip_modules(std::int64_t layers);

/// diffusers' names -> the tensors of `table`, whose names begin with `prefix`; what is in no module is left
/// out. OpenCLIP's in_proj is q, k and v, each a third of its rows.
[[nodiscard]] weights::KeyMap ldm_key_map(const weights::TensorTable& table, const std::string& prefix,
                                          const Modules& modules);

}  // namespace xdit::models
