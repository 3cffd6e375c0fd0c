#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "weights/key_map.h"

namespace xdit::models {

/// diffusers' FluxTransformer2DModel config.
struct FluxConfig {
  std::int64_t in_channels = 64;  ///< of a token: 2 x 2 latent pixels
  std::int64_t out_channels = 64;
  std::int64_t double_blocks = 19;
  std::int64_t single_blocks = 38;
  std::int64_t heads = 24;
  std::int64_t head_dim = 128;
  std::int64_t text_width = 4096;   ///< of T5's embeddings
  std::int64_t pooled_width = 768;  ///< of CLIP's pooled embedding
  bool guidance_embeds = true;
  std::vector<std::int64_t> rotary_axes{16, 56, 56};  ///< channels of a head by axis: time, row, column

  [[nodiscard]] std::int64_t width() const { return heads * head_dim; }
  [[nodiscard]] std::int64_t mlp_width() const { return 4 * width(); }
  /// Outputs of the modulations that are computed at a time: blocks begin and end between such pieces.
  [[nodiscard]] std::int64_t modulation_piece() const { return 3 * width(); }
  [[nodiscard]] std::int64_t blocks() const { return double_blocks + single_blocks; }
};
/// Error(kModel) at a config that no FluxTransformer2DModel has. `where` names the file.
[[nodiscard]] FluxConfig read_flux_config(const nlohmann::json& config, const std::string& where);

inline constexpr std::int64_t kFluxTimeChannels = 256;  ///< of the sin-cos embedding of a time

/// diffusers' names; stacked are q, k, v ("attn.qkv", "attn.add_qkv") and the modulations of all blocks and
/// of the last norm ("modulation").
[[nodiscard]] std::vector<weights::Parameter> flux_parameters(const FluxConfig& config);

}  // namespace xdit::models
