#pragma once
#include "models/denoiser.h"

namespace xdit::models {

/// FLUX as a Denoiser. The loop's latents are tokens [T, 4 C]: 2 x 2 latent pixels each, channels outermost
/// (diffusers FluxPipeline._pack_latents).
[[nodiscard]] std::unique_ptr<Denoiser> make_flux_denoiser(
    const Model& model, BlockRange blocks, nn::Weights& weights, const nn::Linears& linears,
    nn::Attention& attention, const nn::Spatial& spatial,
    const std::shared_ptr<nn::cudnn::Attentions>& built);

}  // namespace xdit::models
