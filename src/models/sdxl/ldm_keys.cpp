#include "models/sdxl/ldm_keys.h"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <utility>
#include <vector>

namespace xdit::models {
namespace {

using Names = std::pair<const char*, const char*>;

constexpr std::array<Names, 7> kUnetModules{{
    {"time_embed.0", "time_embedding.linear_1"},
    {"time_embed.2", "time_embedding.linear_2"},
    {"label_emb.0.0", "add_embedding.linear_1"},
    {"label_emb.0.2", "add_embedding.linear_2"},
    {"input_blocks.0.0", "conv_in"},
    {"out.0", "conv_norm_out"},
    {"out.2", "conv_out"},
}};

constexpr std::array<Names, 6> kResnetModules{{
    {"in_layers.0", "norm1"},
    {"in_layers.2", "conv1"},
    {"emb_layers.1", "time_emb_proj"},
    {"out_layers.0", "norm2"},
    {"out_layers.3", "conv2"},
    {"skip_connection", "conv_shortcut"},
}};

constexpr std::array<Names, 11> kVaeModules{{
    {"post_quant_conv", "post_quant_conv"},
    {"decoder.conv_in", "decoder.conv_in"},
    {"decoder.mid.block_1", "decoder.mid_block.resnets.0"},
    {"decoder.mid.attn_1.norm", "decoder.mid_block.attentions.0.group_norm"},
    {"decoder.mid.attn_1.q", "decoder.mid_block.attentions.0.to_q"},
    {"decoder.mid.attn_1.k", "decoder.mid_block.attentions.0.to_k"},
    {"decoder.mid.attn_1.v", "decoder.mid_block.attentions.0.to_v"},
    {"decoder.mid.attn_1.proj_out", "decoder.mid_block.attentions.0.to_out.0"},
    {"decoder.mid.block_2", "decoder.mid_block.resnets.1"},
    {"decoder.norm_out", "decoder.conv_norm_out"},
    {"decoder.conv_out", "decoder.conv_out"},
}};

constexpr std::array<Names, 4> kClipModules{{
    {"text_model", "text_model"},
    {"embeddings", "text_model.embeddings"},
    {"encoder", "text_model.encoder"},
    {"final_layer_norm", "text_model.final_layer_norm"},
}};

constexpr std::array<Names, 4> kOpenClipModules{{
    {"token_embedding", "text_model.embeddings.token_embedding"},
    {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
    {"ln_final", "text_model.final_layer_norm"},
    {"text_projection", "text_projection"},  // without a dot after it: inputs before outputs
}};

constexpr std::array<Names, 5> kOpenClipLayerModules{{
    {"ln_1", "layer_norm1"},
    {"attn", "self_attn"},
    {"ln_2", "layer_norm2"},
    {"mlp.c_fc", "mlp.fc1"},
    {"mlp.c_proj", "mlp.fc2"},
}};

/// The name here of a tensor there, by the longest of its modules that is known; "" for none.
std::string renamed(const std::string& name, const Modules& modules) {
  for (std::size_t end = name.size(); end != std::string::npos && end > 0; end = name.rfind('.', end - 1))
    if (const auto found = modules.find(name.substr(0, end)); found != modules.end())
      return found->second + name.substr(end);
  return {};
}

class UnetModuleList {
 public:
  explicit UnetModuleList(const UnetConfig& config) : modules_(kUnetModules.begin(), kUnetModules.end()) {
    const UnetLayout layout = unet_layout(config);
    std::int64_t block = 1;
    for (const UnetLayer& layer : layout.down) {
      add(fmt::format("input_blocks.{}.0", block), fmt::format("input_blocks.{}.1", block), layer);
      ++block;
      if (!layer.resample.empty()) modules_[fmt::format("input_blocks.{}.0.op", block++)] = layer.resample;
    }
    for (std::size_t i = 0; i < layout.middle.size(); ++i)  // a resnet, its transformer, another resnet
      add(fmt::format("middle_block.{}", 2 * i), fmt::format("middle_block.{}", 2 * i + 1), layout.middle[i]);
    block = 0;
    for (const UnetLayer& layer : layout.up) {
      const std::string at = fmt::format("output_blocks.{}.", block++);
      add(at + "0", at + "1", layer);
      if (!layer.resample.empty())
        modules_[at + (layer.transformer.empty() ? "1" : "2") + ".conv"] = layer.resample;
    }
  }
  [[nodiscard]] Modules take() { return std::move(modules_); }

 private:
  void add(const std::string& resnet, const std::string& transformer, const UnetLayer& layer) {
    for (const auto& [there, here] : kResnetModules)
      modules_[fmt::format("{}.{}", resnet, there)] = fmt::format("{}.{}", layer.resnet, here);
    if (!layer.transformer.empty()) modules_[transformer] = layer.transformer;
  }

  Modules modules_;
};

}  // namespace

Modules ldm_unet_modules(const UnetConfig& config) {
  return UnetModuleList(config).take();
}

Modules ldm_vae_modules(const VaeConfig& config) {
  Modules modules(kVaeModules.begin(), kVaeModules.end());
  for (std::size_t level = 0; level < config.channels.size(); ++level) {
    const std::string here = fmt::format("decoder.up_blocks.{}.", config.channels.size() - 1 - level);
    const std::string there = fmt::format("decoder.up.{}.", level);
    for (std::int64_t i = 0; i < config.resnets; ++i) {
      const std::string resnet = fmt::format("{}resnets.{}", here, i);
      modules[fmt::format("{}block.{}", there, i)] = resnet;
      modules[fmt::format("{}block.{}.nin_shortcut", there, i)] = resnet + ".conv_shortcut";
    }
    modules[there + "upsample.conv"] = here + "upsamplers.0.conv";
  }
  return modules;
}

Modules clip_modules() {
  return {kClipModules.begin(), kClipModules.end()};
}

Modules openclip_modules(std::int64_t layers) {
  Modules modules(kOpenClipModules.begin(), kOpenClipModules.end());
  for (std::int64_t i = 0; i < layers; ++i)
    for (const auto& [there, here] : kOpenClipLayerModules)
      modules[fmt::format("transformer.resblocks.{}.{}", i, there)] =
          fmt::format("text_model.encoder.layers.{}.{}", i, here);
  return modules;
}

weights::KeyMap ldm_key_map(const weights::TensorTable& table, const std::string& prefix,
                            const Modules& modules) {
  constexpr std::string_view kFused = ".in_proj_";
  weights::KeyMap keys;
  for (const auto& [file_name, tensor] : table.tensors) {
    if (!file_name.starts_with(prefix)) continue;
    const std::string name = renamed(file_name.substr(prefix.size()), modules);
    const weights::Slice all = weights::whole(file_name, tensor);
    if (const std::size_t fused = name.find(kFused); fused != std::string::npos) {
      const std::int64_t rows = all.rows / 3;
      for (std::int64_t i = 0; i < 3; ++i)
        keys[fmt::format("{}.{}_proj.{}", name.substr(0, fused), "qkv"[i],
                         name.substr(fused + kFused.size()))] = {
            {file_name, i * rows, i < 2 ? rows : all.rows - 2 * rows}};
    } else if (!name.empty()) {
      keys[name] = {all};
    }
  }
  return keys;
}

}  // namespace xdit::models
