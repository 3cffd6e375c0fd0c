#include "models/sdxl/ldm_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "weights/describe.h"

namespace xdit::models {
namespace {

using nlohmann::json;

constexpr std::int64_t kNone = -1;  // no transformer

// By resolution, for each of its layers, the blocks of its transformer or kNone.
using Depths = std::vector<std::vector<std::int64_t>>;

std::int64_t depth(const PartShapes& unet, const std::string& transformer) {
  if (!unet.has(transformer + ".norm.weight")) return kNone;
  return unet.count(transformer + ".transformer_blocks.", ".norm1.weight");
}

std::string convolution_of(const std::string& resnet) {
  return resnet + ".in_layers.2.weight";
}

struct Levels {
  Depths down{{}}, up{{}};
  std::vector<std::int64_t> channels{0};
};

Levels levels_of(const PartShapes& unet) {
  Levels levels;
  for (std::int64_t block = 1;; ++block) {
    const std::string at = fmt::format("input_blocks.{}.", block);
    if (unet.has(at + "0.op.weight")) {
      levels.down.emplace_back();
      levels.channels.push_back(0);
    } else if (unet.has(convolution_of(at + "0"))) {
      levels.down.back().push_back(depth(unet, at + "1"));
      levels.channels.back() = unet.size(convolution_of(at + "0"), 0);
    } else {
      break;
    }
  }
  for (std::int64_t block = 0;; ++block) {
    const std::string at = fmt::format("output_blocks.{}.", block);
    if (!unet.has(convolution_of(at + "0"))) break;
    levels.up.back().push_back(depth(unet, at + "1"));
    if (unet.has(at + "1.conv.weight") || unet.has(at + "2.conv.weight")) levels.up.emplace_back();
  }
  const auto fits = [](const std::vector<std::int64_t>& level) {
    const auto none = std::count(level.begin(), level.end(), kNone);
    return !level.empty() && (none == 0 || none == std::ssize(level));
  };
  if (levels.up.size() != levels.down.size() || !std::all_of(levels.down.begin(), levels.down.end(), fits) ||
      !std::all_of(levels.up.begin(), levels.up.end(), fits))
    unet.fail("the blocks of its UNet are not those of any Stable Diffusion");
  return levels;
}

// diffusers' names of the levels' blocks; levels without transformers are then given `otherwise` blocks.
json block_types(Depths& levels, const std::string& kind, std::int64_t otherwise) {
  json types = json::array();
  for (std::vector<std::int64_t>& level : levels) {
    types.push_back((level.front() == kNone ? "" : "CrossAttn") + kind);
    if (level.front() == kNone) level.assign(level.size(), otherwise);
  }
  return types;
}

}  // namespace

json ldm_unet_config(const PartShapes& unet, std::int64_t pooled_width, std::int64_t size_ids) {
  Levels levels = levels_of(unet);
  const std::int64_t middle = depth(unet, "middle_block.1");
  json config{{"in_channels", unet.size("input_blocks.0.0.weight", 1)},
              {"out_channels", unet.size("out.2.weight", 0)},
              {"block_out_channels", levels.channels},
              {"time_embedding_dim", unet.size("time_embed.0.weight", 0)}};
  json& layers = config["layers_per_block"];
  for (const auto& level : levels.down) layers.push_back(level.size());
  config["mid_block_type"] = middle != kNone                              ? json("UNetMidBlock2DCrossAttn")
                             : unet.has(convolution_of("middle_block.0")) ? json("UNetMidBlock2D")
                                                                          : json();
  // The last level's depth is the middle block's, too.
  config["down_block_types"] = block_types(levels.down, "DownBlock2D", std::max<std::int64_t>(middle, 0));
  config["up_block_types"] = block_types(levels.up, "UpBlock2D", 0);
  config["transformer_layers_per_block"] = levels.down;
  config["reverse_transformer_layers_per_block"] = levels.up;
  const auto* projection = unet.any(".proj_in.weight");
  config["use_linear_projection"] = projection != nullptr && projection->size() == 2;
  if (const auto* keys = unet.any(".attn2.to_k.weight"); keys != nullptr && keys->size() == 2)
    config["cross_attention_dim"] = keys->back();
  if (!unet.has("label_emb.0.0.weight")) return config;
  const std::int64_t added = unet.size("label_emb.0.0.weight", 1);
  const std::int64_t sizes = added - pooled_width;
  if (sizes <= 0 || sizes % size_ids != 0)
    unet.fail(fmt::format("its UNet takes {} added channels, which are no pooled prompt of {} and {} sizes",
                          added, pooled_width, size_ids));
  config["addition_embed_type"] = "text_time";
  config["projection_class_embeddings_input_dim"] = added;
  config["addition_time_embed_dim"] = sizes / size_ids;
  return config;
}

json ldm_vae_config(const PartShapes& vae) {
  std::vector<std::int64_t> channels;
  for (std::int64_t i = 0; i < vae.count("decoder.up.", ".block.0.conv1.weight"); ++i)
    channels.push_back(vae.size(fmt::format("decoder.up.{}.block.0.conv1.weight", i), 0));
  if (channels.empty()) static_cast<void>(vae.at("decoder.up.0.block.0.conv1.weight"));
  return {{"block_out_channels", channels},
          {"layers_per_block", vae.count("decoder.up.0.block.", ".conv1.weight") - 1},
          {"latent_channels", vae.size("decoder.conv_in.weight", 1)},
          {"out_channels", vae.size("decoder.conv_out.weight", 0)},
          {"mid_block_add_attention", vae.has("decoder.mid.attn_1.norm.weight")},
          {"use_post_quant_conv", vae.has("post_quant_conv.weight")}};
}

json clip_config(const PartShapes& clip) {
  const std::string layer = "text_model.encoder.layers.";
  json config{{"vocab_size", clip.size("text_model.embeddings.token_embedding.weight", 0)},
              {"hidden_size", clip.size("text_model.embeddings.token_embedding.weight", 1)},
              {"max_position_embeddings", clip.size("text_model.embeddings.position_embedding.weight", 0)},
              {"intermediate_size", clip.size(layer + "0.mlp.fc1.weight", 0)},
              {"num_hidden_layers", clip.count(layer, ".layer_norm1.weight")}};
  if (clip.has("text_projection"))
    config["projection_dim"] = clip.size("text_projection", 1);
  else if (clip.has("text_projection.weight"))
    config["projection_dim"] = clip.size("text_projection.weight", 0);
  return config;
}

}  // namespace xdit::models
