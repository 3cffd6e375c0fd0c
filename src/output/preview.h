#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace xdit::output {

/// A linear map of a latent pixel's channels, as the denoiser has them, to red, green and blue in -1..1.
struct Projection {
  std::span<const std::array<float, 3>> factors;  ///< a channel each
  std::array<float, 3> bias{};
};

/// Of the latents of a model family; nothing where none is known. Source: fitted by the users of ComfyUI
/// (its latent_formats.py).
[[nodiscard]] std::optional<Projection> projection_of(std::string_view family, std::int64_t channels);

/// [C, pixels] -> RGB bytes [pixels, 3].
[[nodiscard]] std::vector<std::uint8_t> projected(const Projection& projection,
                                                  std::span<const float> latents);

}  // namespace xdit::output
