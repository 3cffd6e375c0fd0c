#include "models/vae/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "weights/config_reader.h"
#include "weights/parameter_list.h"

namespace xdit::models {
namespace {

void resnet(weights::ParameterList& list, const std::string& at, std::int64_t inputs, std::int64_t outputs) {
  list.norm(at + "norm1", inputs, true);
  list.convolution(at + "conv1", inputs, outputs, 3);
  list.norm(at + "norm2", outputs, true);
  list.convolution(at + "conv2", outputs, outputs, 3);
  if (inputs != outputs) list.convolution(at + "conv_shortcut", inputs, outputs, 1);
}

void check_blocks(const weights::ConfigReader& read, const nlohmann::json& config, const char* key,
                  const std::string& kind) {
  const auto found = config.find(key);
  if (found == config.end()) return;
  const bool fits = found->is_array() &&
                    std::all_of(found->begin(), found->end(), [&](const auto& name) { return name == kind; });
  if (!fits) read.refuse(key, "a list of " + kind);
}

// A number for each channel of latents, or none.
std::vector<double> latent_numbers(const weights::ConfigReader& read, const nlohmann::json& config,
                                   const char* key, std::int64_t channels) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return {};
  if (!found->is_array() || std::ssize(*found) != channels ||
      !std::all_of(found->begin(), found->end(), [](const auto& number) { return number.is_number(); }))
    read.refuse(key, fmt::format("{} numbers", channels));
  return found->get<std::vector<double>>();
}

}  // namespace

VaeConfig read_vae_config(const nlohmann::json& config, const std::string& where) {
  const weights::ConfigReader read(config, where);
  VaeConfig vae;
  vae.channels = read.sizes("block_out_channels");
  vae.resnets = read.count("layers_per_block", 1) + 1;
  vae.latent_channels = read.size("latent_channels", 4);
  vae.out_channels = read.size("out_channels", 3);
  vae.groups = read.size("norm_num_groups", 32);
  vae.mid_attention = read.boolean("mid_block_add_attention", true);
  vae.post_quant_conv = read.boolean("use_post_quant_conv", true);
  vae.scaling_factor = read.number("scaling_factor", 0.18215);
  vae.shift_factor = read.number("shift_factor", 0);
  vae.means = latent_numbers(read, config, "latents_mean", vae.latent_channels);
  vae.deviations = latent_numbers(read, config, "latents_std", vae.latent_channels);
  if (vae.means.empty() || vae.deviations.empty()) vae.means = vae.deviations = {};  // as diffusers
  check_blocks(read, config, "up_block_types", "UpDecoderBlock2D");
  if (vae.out_channels != 3) read.refuse("out_channels", "3");
  if (read.text("act_fn", "silu") != "silu") read.refuse("act_fn", "silu");
  if (vae.channels.size() > 8) read.refuse("block_out_channels", "at most 8 levels");
  if (vae.scaling_factor == 0) read.refuse("scaling_factor", "a number that is not 0");
  for (const std::int64_t width : vae.channels)
    if (width % vae.groups != 0) read.refuse("norm_num_groups", fmt::format("a divisor of {}", width));
  return vae;
}

weights::KeyMap vae_keys(const weights::KeyMap& names) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kOlder{
      {{".query.", ".to_q."}, {".key.", ".to_k."}, {".value.", ".to_v."}, {".proj_attn.", ".to_out.0."}}};
  weights::KeyMap keys;
  for (const auto& [name, slices] : names) {
    std::string canonical = name;
    for (const auto& [older, now] : kOlder)
      if (const std::size_t at = name.find(older); at != std::string::npos)
        canonical.replace(at, older.size(), now);
    keys[canonical] = slices;
  }
  return keys;
}

std::vector<weights::Parameter> vae_decoder_parameters(const VaeConfig& config) {
  weights::ParameterList list;
  if (config.post_quant_conv)
    list.convolution("post_quant_conv", config.latent_channels, config.latent_channels, 1);
  std::int64_t width = config.channels.back();
  list.convolution("decoder.conv_in", config.latent_channels, width, 3);
  resnet(list, "decoder.mid_block.resnets.0.", width, width);
  if (config.mid_attention) {
    const std::string at = "decoder.mid_block.attentions.0.";
    list.norm(at + "group_norm", width, true);
    list.stacked(at + "qkv", {{at + "to_q", width}, {at + "to_k", width}, {at + "to_v", width}}, width);
    list.linear(at + "to_out.0", width, width);
  }
  resnet(list, "decoder.mid_block.resnets.1.", width, width);
  for (std::size_t level = 0; level < config.channels.size(); ++level) {
    const std::string at = fmt::format("decoder.up_blocks.{}.", level);
    const std::int64_t outputs = config.channels[config.channels.size() - 1 - level];
    for (std::int64_t i = 0; i < config.resnets; ++i) {
      resnet(list, fmt::format("{}resnets.{}.", at, i), width, outputs);
      width = outputs;
    }
    if (level + 1 < config.channels.size()) list.convolution(at + "upsamplers.0.conv", width, width, 3);
  }
  list.norm("decoder.conv_norm_out", width, true);
  list.convolution("decoder.conv_out", width, config.out_channels, 3);
  return list.take();
}

}  // namespace xdit::models
