#include "models/denoiser.h"

#include <array>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "models/flux/denoiser.h"
#include "models/sdxl/denoiser.h"

namespace xdit::models {
namespace {

using Make = std::unique_ptr<Denoiser>(const Model&, BlockRange, nn::Weights&, const nn::Linears&,
                                       nn::Attention&, const nn::Spatial&,
                                       const std::shared_ptr<nn::cudnn::Attentions>&);
constexpr std::array<std::pair<std::string_view, Make*>, 4> kFamilies{{
    {"flux", make_flux_denoiser},
    {"sdxl", make_unet_denoiser},
    {"sdxl-refiner", make_unet_denoiser},
    {"sd", make_unet_denoiser},
}};

}  // namespace

std::unique_ptr<Denoiser> make_denoiser(const Model& model, BlockRange blocks, nn::Weights& weights,
                                        const nn::Linears& linears, nn::Attention& attention,
                                        const nn::Spatial& spatial,
                                        const std::shared_ptr<nn::cudnn::Attentions>& built) {
  for (const auto& [family, make] : kFamilies)
    if (family == model.family) return make(model, blocks, weights, linears, attention, spatial, built);
  broken_invariant("the family has a denoiser", __FILE__, __LINE__);
}

}  // namespace xdit::models
