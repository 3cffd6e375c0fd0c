#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "weights/key_map.h"

namespace xdit::models {

/// One resolution of a UNet; each is half as high and wide as the one before.
struct UnetLevel {
  std::int64_t channels = 0;
  std::int64_t heads = 0;          ///< of its attention layers
  std::vector<std::int64_t> down;  ///< by layer, the blocks of its transformer; kNoTransformer: none
  std::vector<std::int64_t> up;    ///< the same of the way back: one layer more
  static constexpr std::int64_t kNoTransformer = -1;
};

/// diffusers' UNet2DConditionModel config (Rombach et al. 2022, Podell et al. 2023).
struct UnetConfig {
  std::vector<UnetLevel> levels;
  std::vector<std::int64_t> middle;  ///< its layers, as UnetLevel::down
  std::int64_t in_channels = 4;
  std::int64_t out_channels = 4;
  std::int64_t text_width = 1280;  ///< of the prompt's tokens
  std::int64_t time_width = 0;     ///< of the time embedding
  std::int64_t groups = 32;
  double eps = 1e-5;
  bool linear_projection = false;  ///< into and out of a transformer; else a 1x1 convolution
  bool cosine_first = true;        ///< in sin-cos embeddings
  double frequency_shift = 0;
  std::int64_t added_width = 0;    ///< of pooled prompt and embedded size ids; 0: the model has neither
  std::int64_t size_channels = 0;  ///< of the sin-cos embedding of a size id

  [[nodiscard]] std::int64_t blocks() const;  ///< all layers
};
/// Error(kModel) at a config that no UNet2DConditionModel has, or one with parts that are not supported.
/// `where` names the file.
[[nodiscard]] UnetConfig read_unet_config(const nlohmann::json& config, const std::string& where);

/// A layer: a resnet, perhaps a transformer, perhaps a convolution to the next resolution.
struct UnetLayer {
  std::string resnet;  ///< "down_blocks.0.resnets.1"
  std::int64_t inputs = 0;
  std::int64_t outputs = 0;
  std::string transformer{};  ///< "down_blocks.0.attentions.1" or none
  std::int64_t depth = 0;     ///< of it
  std::int64_t heads = 0;
  std::string resample{};  ///< "down_blocks.0.downsamplers.0.conv" or none
};
/// All layers in the order of use. Each of `up` also takes what a layer, a halving or the first convolution
/// of the way down has left, the last one first.
struct UnetLayout {
  std::vector<UnetLayer> down, middle, up;
};
[[nodiscard]] UnetLayout unet_layout(const UnetConfig& config);

/// diffusers' names; stacked are q, k, v of a self-attention ("attn1.qkv"), the projections of the time
/// embedding of all resnets ("time_projections") and k, v of all cross-attentions ("cross_attentions"), in
/// the order of use.
[[nodiscard]] std::vector<weights::Parameter> unet_parameters(const UnetConfig& config);

}  // namespace xdit::models
