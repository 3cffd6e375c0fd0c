#pragma once
#include "models/denoiser.h"

namespace xdit::models {

/// A UNet as a Denoiser. The loop's latents are pixels [h w, C], row by row: whole rows of them.
[[nodiscard]] std::unique_ptr<Denoiser> make_unet_denoiser(
    const Model& model, BlockRange blocks, nn::Weights& weights, const nn::Linears& linears,
    nn::Attention& attention, const nn::Spatial& spatial,
    const std::shared_ptr<nn::cudnn::Attentions>& built);

}  // namespace xdit::models
