#include "models/sdxl/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "weights/config_reader.h"
#include "weights/parameter_list.h"

namespace xdit::models {
namespace {

using nlohmann::json;
using weights::StackedPart;

constexpr std::int64_t kMostLayers = 64;  // of a level, and blocks of a transformer

// Parts of a UNet2DConditionModel that none of the supported models has: each must be as here, null or
// absent.
constexpr std::array<std::pair<const char*, const char*>, 24> kFixed{{
    {"act_fn", R"("silu")"},
    {"attention_type", R"("default")"},
    {"center_input_sample", "false"},
    {"class_embed_type", "null"},
    {"class_embeddings_concat", "false"},
    {"conv_in_kernel", "3"},
    {"conv_out_kernel", "3"},
    {"cross_attention_norm", "null"},
    {"downsample_padding", "1"},
    {"dual_cross_attention", "false"},
    {"encoder_hid_dim", "null"},
    {"encoder_hid_dim_type", "null"},
    {"mid_block_only_cross_attention", "false"},
    {"mid_block_scale_factor", "1"},
    {"num_attention_heads", "null"},
    {"num_class_embeds", "null"},
    {"only_cross_attention", "false"},
    {"resnet_out_scale_factor", "1"},
    {"resnet_skip_time_act", "false"},
    {"resnet_time_scale_shift", R"("default")"},
    {"time_cond_proj_dim", "null"},
    {"time_embedding_act_fn", "null"},
    {"time_embedding_type", R"("positional")"},
    {"timestep_post_act", "null"},
}};

struct Reader {
  const weights::ConfigReader read;
  const json& config;
  std::size_t levels;

  [[nodiscard]] const json* find(const char* key) const {
    const auto found = config.find(key);
    return found == config.end() || found->is_null() ? nullptr : &*found;
  }
  // One number for all levels or one for each.
  [[nodiscard]] std::vector<std::int64_t> by_level(const char* key, std::int64_t otherwise) const {
    const json* value = find(key);
    if (value == nullptr || !value->is_array())
      return std::vector<std::int64_t>(levels, read.size(key, otherwise));
    std::vector<std::int64_t> all = read.sizes(key);
    if (all.size() != levels) read.refuse(key, fmt::format("{} numbers, one a level", levels));
    return all;
  }
  // Of each level, whether its block of that name has transformers.
  [[nodiscard]] std::vector<bool> has_transformers(const char* key, const std::string& kind) const {
    const json* value = find(key);
    const std::string expected = fmt::format("{} of {} and CrossAttn{}", levels, kind, kind);
    if (value == nullptr || !value->is_array() || value->size() != levels) read.refuse(key, expected);
    std::vector<bool> all;
    for (const json& name : *value) {
      all.push_back(name == "CrossAttn" + kind);
      if (!all.back() && name != kind) read.refuse(key, expected);
    }
    return all;
  }
  // Blocks of the transformers of `layers` layers at position `at` of a number, a list of numbers or one of
  // lists.
  [[nodiscard]] std::vector<std::int64_t> depths(const char* key, std::size_t at, std::int64_t layers) const {
    const json* value = find(key);
    const auto count = static_cast<std::size_t>(layers);
    if (value == nullptr) return std::vector<std::int64_t>(count, 1);
    if (value->is_array() && value->size() != levels) refuse_depths(key);
    const json& of_level = value->is_array() ? (*value)[at] : *value;
    if (!of_level.is_array()) return std::vector<std::int64_t>(count, depth(key, of_level));
    if (of_level.size() != count) refuse_depths(key);
    std::vector<std::int64_t> all;
    all.reserve(count);
    for (const json& number : of_level) all.push_back(depth(key, number));
    return all;
  }
  [[nodiscard]] std::int64_t depth(const char* key, const json& number) const {
    if (!number.is_number_integer() || number < 0 || number > kMostLayers) refuse_depths(key);
    return number.get<std::int64_t>();
  }
  [[noreturn]] void refuse_depths(const char* key) const {
    read.refuse(
        key, fmt::format("a number 0..{} for all levels, one for each or one for each layer", kMostLayers));
  }
};

void read_levels(const Reader& of, UnetConfig& unet) {
  const weights::ConfigReader& read = of.read;
  const auto channels = read.sizes("block_out_channels");
  const auto heads = of.by_level("attention_head_dim", 8);  // the number of heads, whatever its name says
  const auto layers = of.by_level("layers_per_block", 2);
  const auto down = of.has_transformers("down_block_types", "DownBlock2D");
  const auto up = of.has_transformers("up_block_types", "UpBlock2D");
  const char* key = "transformer_layers_per_block";
  const char* reverse = "reverse_transformer_layers_per_block";
  const bool symmetric = of.find(reverse) == nullptr;
  for (std::size_t i = 0; i < of.levels; ++i) {
    const std::size_t back = of.levels - 1 - i;  // on the way up
    if (layers[i] > kMostLayers) read.refuse("layers_per_block", fmt::format("at most {}", kMostLayers));
    if (channels[i] % heads[i] != 0)
      read.refuse("attention_head_dim", fmt::format("numbers of heads, here a divisor of {}", channels[i]));
    if (channels[i] % unet.groups != 0)
      read.refuse("norm_num_groups", fmt::format("a divisor of {}", channels[i]));
    UnetLevel level{.channels = channels[i], .heads = heads[i], .down = {}, .up = {}};
    level.down.assign(static_cast<std::size_t>(layers[i]), UnetLevel::kNoTransformer);
    level.up.assign(static_cast<std::size_t>(layers[i]) + 1, UnetLevel::kNoTransformer);
    if (down[i]) level.down = of.depths(key, i, layers[i]);
    if (up[back]) level.up = of.depths(symmetric ? key : reverse, symmetric ? i : back, layers[i] + 1);
    unet.levels.push_back(std::move(level));
  }
  const auto kind = of.config.find("mid_block_type");
  if (kind == of.config.end() || *kind == "UNetMidBlock2DCrossAttn") {
    const json* all = of.find(key);
    const auto layers_of_last = all != nullptr && all->is_array() && !all->empty() && all->back().is_array()
                                    ? static_cast<std::int64_t>(all->back().size())
                                    : 1;
    unet.middle = of.depths(key, of.levels - 1, layers_of_last);
    unet.middle.resize(1);
    unet.middle.push_back(UnetLevel::kNoTransformer);
  } else if (*kind == "UNetMidBlock2D") {
    unet.middle = {UnetLevel::kNoTransformer};
  } else if (!kind->is_null()) {
    read.refuse("mid_block_type", "UNetMidBlock2DCrossAttn, UNetMidBlock2D or null");
  }
}

void add_resnet(weights::ParameterList& list, const UnetLayer& layer) {
  list.norm(layer.resnet + ".norm1", layer.inputs, true);
  list.tensor(layer.resnet + ".conv1.weight", {layer.outputs, layer.inputs, 3, 3});
  list.norm(layer.resnet + ".norm2", layer.outputs, true);
  list.convolution(layer.resnet + ".conv2", layer.outputs, layer.outputs, 3);
  if (layer.inputs != layer.outputs)
    list.convolution(layer.resnet + ".conv_shortcut", layer.inputs, layer.outputs, 1);
}

void add_transformer(weights::ParameterList& list, const UnetConfig& config, const UnetLayer& layer) {
  const std::int64_t width = layer.outputs;
  const auto projection = [&](const std::string& name) {
    config.linear_projection ? list.linear(name, width, width) : list.pixel_linear(name, width, width);
  };
  list.norm(layer.transformer + ".norm", width, true);
  projection(layer.transformer + ".proj_in");
  for (std::int64_t i = 0; i < layer.depth; ++i) {
    const std::string at = fmt::format("{}.transformer_blocks.{}.", layer.transformer, i);
    for (const char* norm : {"norm1", "norm2", "norm3"}) list.norm(at + norm, width, true);
    list.stacked(at + "attn1.qkv",
                 {{at + "attn1.to_q", width}, {at + "attn1.to_k", width}, {at + "attn1.to_v", width}}, width,
                 /*bias=*/false);
    list.linear(at + "attn1.to_out.0", width, width);
    list.linear(at + "attn2.to_q", width, width, /*bias=*/false);
    list.linear(at + "attn2.to_out.0", width, width);
    list.linear(at + "ff.net.0.proj", width, 8 * width);  // values, then gates, of 4 width each
    list.linear(at + "ff.net.2", 4 * width, width);
  }
  projection(layer.transformer + ".proj_out");
}

}  // namespace

std::int64_t UnetConfig::blocks() const {
  std::size_t sum = middle.size();
  for (const UnetLevel& level : levels) sum += level.down.size() + level.up.size();
  return static_cast<std::int64_t>(sum);
}

UnetConfig read_unet_config(const json& config, const std::string& where) {
  const weights::ConfigReader read(config, where);
  const Reader of{read, config, read.sizes("block_out_channels").size()};
  for (const auto& [key, fixed] : kFixed) {
    const json* value = of.find(key);
    const json expected = json::parse(fixed);
    const auto fits = [&](const json& found) { return found == expected; };
    if (value != nullptr && !fits(*value) &&
        !(value->is_array() && std::all_of(value->begin(), value->end(), fits)))
      read.refuse(key, fixed);
  }
  if (of.levels > 8) read.refuse("block_out_channels", "at most 8 levels");
  UnetConfig unet;
  unet.groups = read.size("norm_num_groups", unet.groups);
  unet.eps = read.number("norm_eps", unet.eps);
  read_levels(of, unet);
  unet.in_channels = read.size("in_channels", unet.in_channels);
  unet.out_channels = read.size("out_channels", unet.out_channels);
  if (unet.in_channels != unet.out_channels)
    read.refuse("in_channels",
                fmt::format("{} as out_channels (this is {})", unet.out_channels,
                            unet.in_channels == 2 * unet.out_channels + 1 ? "an inpainting model"
                                                                          : "a model that edits pictures"));
  const auto text_widths = of.by_level("cross_attention_dim", unet.text_width);
  unet.text_width = text_widths.front();
  if (std::any_of(text_widths.begin(), text_widths.end(), [&](auto w) { return w != unet.text_width; }))
    read.refuse("cross_attention_dim", "one width for all levels");
  const std::int64_t width = unet.levels.front().channels;
  if (width % 2 != 0) read.refuse("block_out_channels", "an even number first");
  unet.time_width = read.size("time_embedding_dim", 4 * width);
  unet.linear_projection = read.boolean("use_linear_projection", false);
  unet.cosine_first = read.boolean("flip_sin_to_cos", true);
  unet.frequency_shift = read.number("freq_shift", 0);
  if (unet.frequency_shift >= static_cast<double>(width) / 2)
    read.refuse("freq_shift", fmt::format("less than {}", width / 2));
  // upcast_attention is without effect in diffusers' own attention (AttnProcessor2_0), and here.
  static_cast<void>(read.boolean("upcast_attention", false));
  const std::string added = read.text("addition_embed_type", "");
  if (!added.empty() && added != "text_time") read.refuse("addition_embed_type", "text_time or null");
  if (added.empty()) return unet;
  unet.added_width = read.size("projection_class_embeddings_input_dim");
  unet.size_channels = read.size("addition_time_embed_dim");
  if (unet.size_channels % 2 != 0 || static_cast<double>(unet.size_channels) / 2 <= unet.frequency_shift)
    read.refuse("addition_time_embed_dim", "an even number above twice freq_shift");
  return unet;
}

UnetLayout unet_layout(const UnetConfig& config) {
  UnetLayout layout;
  std::int64_t width = config.levels.front().channels;
  std::vector<std::int64_t> left{width};  // channels of what the way down leaves to the way up
  const auto layer = [&](const std::string& at, std::size_t i, std::int64_t inputs, const UnetLevel& level,
                         std::int64_t depth) {
    width = level.channels;
    UnetLayer made{.resnet = fmt::format("{}.resnets.{}", at, i), .inputs = inputs, .outputs = width};
    if (depth == UnetLevel::kNoTransformer) return made;
    made.transformer = fmt::format("{}.attentions.{}", at, i);
    made.depth = depth;
    made.heads = level.heads;
    return made;
  };
  for (std::size_t i = 0; i < config.levels.size(); ++i) {
    const UnetLevel& level = config.levels[i];
    const std::string at = fmt::format("down_blocks.{}", i);
    for (std::size_t j = 0; j < level.down.size(); ++j) {
      layout.down.push_back(layer(at, j, width, level, level.down[j]));
      left.push_back(width);
    }
    if (i + 1 == config.levels.size()) break;
    layout.down.back().resample = at + ".downsamplers.0.conv";
    left.push_back(width);
  }
  for (std::size_t j = 0; j < config.middle.size(); ++j)
    layout.middle.push_back(layer("mid_block", j, width, config.levels.back(), config.middle[j]));
  for (std::size_t i = 0; i < config.levels.size(); ++i) {
    const UnetLevel& level = config.levels[config.levels.size() - 1 - i];
    const std::string at = fmt::format("up_blocks.{}", i);
    for (std::size_t j = 0; j < level.up.size(); ++j) {
      layout.up.push_back(layer(at, j, width + left.back(), level, level.up[j]));
      left.pop_back();
    }
    if (i + 1 < config.levels.size()) layout.up.back().resample = at + ".upsamplers.0.conv";
  }
  return layout;
}

std::vector<weights::Parameter> unet_parameters(const UnetConfig& config) {
  const UnetLayout layout = unet_layout(config);
  weights::ParameterList list;
  std::vector<StackedPart> times;
  std::vector<StackedPart> cross;
  const std::int64_t width = config.levels.front().channels;
  const auto embedding = [&](const std::string& name, std::int64_t inputs) {
    list.linear(name + ".linear_1", inputs, config.time_width);
    list.linear(name + ".linear_2", config.time_width, config.time_width);
  };
  embedding("time_embedding", width);
  if (config.added_width > 0) embedding("add_embedding", config.added_width);
  list.convolution("conv_in", config.in_channels, width, 3);
  std::int64_t block = 0;
  for (const auto* layers : {&layout.down, &layout.middle, &layout.up})
    for (const UnetLayer& layer : *layers) {
      list.block(weights::kNoBlock);
      list.tensor(layer.resnet + ".conv1.bias", {layer.outputs});  // the time's is added to it beforehand
      list.block(block++);
      add_resnet(list, layer);
      times.push_back({layer.resnet + ".time_emb_proj", layer.outputs});
      if (!layer.transformer.empty()) add_transformer(list, config, layer);
      for (std::int64_t i = 0; i < layer.depth; ++i) {
        const std::string at = fmt::format("{}.transformer_blocks.{}.attn2.", layer.transformer, i);
        cross.push_back({at + "to_k", layer.outputs});
        cross.push_back({at + "to_v", layer.outputs});
      }
      if (!layer.resample.empty()) list.convolution(layer.resample, layer.outputs, layer.outputs, 3);
    }
  list.block(weights::kNoBlock);
  list.stacked("time_projections", times, config.time_width);
  if (!cross.empty()) list.stacked("cross_attentions", cross, config.text_width, /*bias=*/false);
  list.norm("conv_norm_out", width, true);
  list.convolution("conv_out", width, config.out_channels, 3);
  return list.take();
}

}  // namespace xdit::models
