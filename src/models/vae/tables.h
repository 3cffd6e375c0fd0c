#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "weights/key_map.h"

namespace xdit::models {

/// diffusers' AutoencoderKL config, as far as the decoder depends on it.
struct VaeConfig {
  std::vector<std::int64_t> channels{128, 256, 512, 512};  ///< by level, full resolution first
  std::int64_t resnets = 3;                                ///< of a level of the decoder
  std::int64_t latent_channels = 16;
  std::int64_t out_channels = 3;
  std::int64_t groups = 32;  ///< of group norms
  bool mid_attention = true;
  bool post_quant_conv = false;
  double scaling_factor = 0.3611;
  double shift_factor = 0.1159;
  std::vector<double> means{}, deviations{};  ///< of latents, by channel, in place of shift_factor; or empty

  /// Pixels along a side of a latent pixel.
  [[nodiscard]] std::int64_t downscale() const { return std::int64_t{1} << (channels.size() - 1); }
};
/// Error(kModel) at a config that no AutoencoderKL has. `where` names the file.
[[nodiscard]] VaeConfig read_vae_config(const nlohmann::json& config, const std::string& where);

/// Canonical names from a folder's: older ones call the attention's linears query, key, value and proj_attn.
[[nodiscard]] weights::KeyMap vae_keys(const weights::KeyMap& names);

/// The decoder's, by diffusers' names.
[[nodiscard]] std::vector<weights::Parameter> vae_decoder_parameters(const VaeConfig& config);

}  // namespace xdit::models
