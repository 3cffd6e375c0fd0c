#include "models/flux/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "weights/config_reader.h"
#include "weights/parameter_list.h"

namespace xdit::models {
namespace {

using weights::Cut;
using weights::StackedPart;

// Every modulation is a linear of the same vector, so all of them are one: computed for all steps at once.
std::vector<StackedPart> modulations(const FluxConfig& config) {
  const std::int64_t width = config.width();
  std::vector<StackedPart> parts;
  for (std::int64_t i = 0; i < config.double_blocks; ++i) {
    parts.push_back({fmt::format("transformer_blocks.{}.norm1.linear", i), 6 * width, i});
    parts.push_back({fmt::format("transformer_blocks.{}.norm1_context.linear", i), 6 * width, i});
  }
  for (std::int64_t i = 0; i < config.single_blocks; ++i)
    parts.push_back(
        {fmt::format("single_transformer_blocks.{}.norm.linear", i), 3 * width, config.double_blocks + i});
  parts.push_back({"norm_out.linear", 2 * width});
  return parts;
}

void embedder(weights::ParameterList& list, const std::string& name, std::int64_t inputs,
              std::int64_t width) {
  list.linear(name + ".linear_1", inputs, width);
  list.linear(name + ".linear_2", width, width);
}

}  // namespace

FluxConfig read_flux_config(const nlohmann::json& config, const std::string& where) {
  const weights::ConfigReader read(config, where);
  FluxConfig flux;
  flux.in_channels = read.size("in_channels", flux.in_channels);
  flux.out_channels = read.size("out_channels", flux.in_channels);
  flux.double_blocks = read.count("num_layers", flux.double_blocks);
  flux.single_blocks = read.count("num_single_layers", flux.single_blocks);
  flux.heads = read.size("num_attention_heads", flux.heads);
  flux.head_dim = read.size("attention_head_dim", flux.head_dim);
  flux.text_width = read.size("joint_attention_dim", flux.text_width);
  flux.pooled_width = read.size("pooled_projection_dim", flux.pooled_width);
  flux.guidance_embeds = read.boolean("guidance_embeds", false);
  flux.rotary_axes = read.sizes("axes_dims_rope", flux.rotary_axes);
  const bool even =
      std::all_of(flux.rotary_axes.begin(), flux.rotary_axes.end(), [](auto d) { return d % 2 == 0; });
  if (!even || flux.rotary_axes.size() != 3 ||
      std::reduce(flux.rotary_axes.begin(), flux.rotary_axes.end()) != flux.head_dim)
    read.refuse("axes_dims_rope",
                fmt::format("three even numbers that sum to attention_head_dim {}", flux.head_dim));
  if (read.size("patch_size", 1) != 1) read.refuse("patch_size", "1");
  if (flux.in_channels % 4 != 0 || flux.in_channels != flux.out_channels)
    read.refuse("in_channels",
                "a multiple of 4 that equals out_channels (fill and control models are not supported)");
  return flux;
}

std::vector<weights::Parameter> flux_parameters(const FluxConfig& config) {
  weights::ParameterList list;
  const std::int64_t width = config.width();
  const std::int64_t mlp = config.mlp_width();
  list.linear("x_embedder", config.in_channels, width);
  list.linear("context_embedder", config.text_width, width);
  embedder(list, "time_text_embed.timestep_embedder", kFluxTimeChannels, width);
  if (config.guidance_embeds) embedder(list, "time_text_embed.guidance_embedder", kFluxTimeChannels, width);
  embedder(list, "time_text_embed.text_embedder", config.pooled_width, width);
  list.stacked_in_pieces("modulation", modulations(config), width, config.modulation_piece());

  for (std::int64_t i = 0; i < config.double_blocks; ++i) {
    const std::string at = fmt::format("transformer_blocks.{}.", i);
    const std::string attn = at + "attn.";
    list.block(i);
    list.stacked(attn + "qkv", {{attn + "to_q", width}, {attn + "to_k", width}, {attn + "to_v", width}},
                 width, true, Cut::kOutputs);
    list.stacked(attn + "add_qkv",
                 {{attn + "add_q_proj", width}, {attn + "add_k_proj", width}, {attn + "add_v_proj", width}},
                 width, true, Cut::kOutputs);
    for (const char* norm : {"norm_q", "norm_k", "norm_added_q", "norm_added_k"})
      list.norm(attn + norm, config.head_dim, false);
    list.cut_inputs(attn + "to_out.0", {width}, width);
    list.cut_inputs(attn + "to_add_out", {width}, width);
    for (const char* stream : {"ff", "ff_context"}) {
      list.cut_outputs(at + stream + ".net.0.proj", width, mlp);
      list.cut_inputs(at + stream + ".net.2", {mlp}, width);
    }
  }
  for (std::int64_t i = 0; i < config.single_blocks; ++i) {
    const std::string at = fmt::format("single_transformer_blocks.{}.", i);
    const std::string attn = at + "attn.";
    list.block(config.double_blocks + i);
    list.stacked(attn + "qkv", {{attn + "to_q", width}, {attn + "to_k", width}, {attn + "to_v", width}},
                 width, true, Cut::kOutputs);
    list.cut_outputs(at + "proj_mlp", width, mlp);
    list.norm(attn + "norm_q", config.head_dim, false);
    list.norm(attn + "norm_k", config.head_dim, false);
    list.cut_inputs(at + "proj_out", {width, mlp}, width);
  }
  list.block(weights::kNoBlock);
  list.linear("proj_out", width, config.out_channels);
  return list.take();
}

}  // namespace xdit::models
