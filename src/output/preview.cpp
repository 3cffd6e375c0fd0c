#include "output/preview.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace xdit::output {
namespace {

using Rgb = std::array<float, 3>;

constexpr std::array<Rgb, 4> kSd{{{0.3512F, 0.2297F, 0.3227F},
                                  {0.3250F, 0.4974F, 0.2350F},
                                  {-0.2829F, 0.1762F, 0.2721F},
                                  {-0.2120F, -0.2616F, -0.7177F}}};

constexpr std::array<Rgb, 4> kSdxl{{{0.3651F, 0.4232F, 0.4341F},
                                    {-0.2533F, -0.0042F, 0.1068F},
                                    {0.1076F, 0.1111F, -0.0362F},
                                    {-0.3165F, -0.2492F, -0.2188F}}};

constexpr std::array<Rgb, 16> kFlux{{{-0.0346F, 0.0244F, 0.0681F},
                                     {0.0034F, 0.0210F, 0.0687F},
                                     {0.0275F, -0.0668F, -0.0433F},
                                     {-0.0174F, 0.0160F, 0.0617F},
                                     {0.0859F, 0.0721F, 0.0329F},
                                     {0.0004F, 0.0383F, 0.0115F},
                                     {0.0405F, 0.0861F, 0.0915F},
                                     {-0.0236F, -0.0185F, -0.0259F},
                                     {-0.0245F, 0.0250F, 0.1180F},
                                     {0.1008F, 0.0755F, -0.0421F},
                                     {-0.0515F, 0.0201F, 0.0011F},
                                     {0.0428F, -0.0012F, -0.0036F},
                                     {0.0817F, 0.0765F, 0.0749F},
                                     {-0.1264F, -0.0522F, -0.1103F},
                                     {-0.0280F, -0.0881F, -0.0499F},
                                     {-0.1262F, -0.0982F, -0.0778F}}};

struct Known {
  std::string_view family;
  Projection projection;
};
constexpr std::array<Known, 4> kKnown{{{"sd", {kSd, {}}},
                                       {"sdxl", {kSdxl, {0.1084F, -0.0175F, -0.0011F}}},
                                       {"sdxl-refiner", {kSdxl, {0.1084F, -0.0175F, -0.0011F}}},
                                       {"flux", {kFlux, {-0.0329F, -0.0718F, -0.0851F}}}}};

}  // namespace

std::optional<Projection> projection_of(std::string_view family, std::int64_t channels) {
  for (const Known& known : kKnown)
    if (known.family == family && std::ssize(known.projection.factors) == channels) return known.projection;
  return std::nullopt;
}

std::vector<std::uint8_t> projected(const Projection& projection, std::span<const float> latents) {
  const std::size_t channels = projection.factors.size();
  XDIT_ASSERT(latents.size() % channels == 0);
  const std::size_t pixels = latents.size() / channels;
  std::vector<std::uint8_t> rgb(pixels * 3);
  for (std::size_t pixel = 0; pixel < pixels; ++pixel)
    for (std::size_t colour = 0; colour < 3; ++colour) {
      float value = projection.bias.at(colour);
      for (std::size_t channel = 0; channel < channels; ++channel)
        value += projection.factors[channel].at(colour) * latents[channel * pixels + pixel];
      const float shown = std::isfinite(value) ? std::clamp(value / 2 + 0.5F, 0.0F, 1.0F) : 0;
      rgb[pixel * 3 + colour] = static_cast<std::uint8_t>(std::lround(shown * 255));
    }
  return rgb;
}

}  // namespace xdit::output
