#include "models/flux/bfl_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "models/part_shapes.h"

namespace xdit::models {
namespace {

using weights::KeyMap;
using weights::Slice;
using weights::TensorTable;

/// A module of black-forest-labs/flux model.py and the diffusers modules whose rows it holds, in order: each
/// but the last has as many rows as the model is wide.
struct Row {
  std::string_view bfl;
  std::array<std::string_view, 4> diffusers;
};

constexpr std::array<Row, 10> kOutside{{
    {"img_in", {"x_embedder"}},
    {"txt_in", {"context_embedder"}},
    {"time_in.in_layer", {"time_text_embed.timestep_embedder.linear_1"}},
    {"time_in.out_layer", {"time_text_embed.timestep_embedder.linear_2"}},
    {"guidance_in.in_layer", {"time_text_embed.guidance_embedder.linear_1"}},
    {"guidance_in.out_layer", {"time_text_embed.guidance_embedder.linear_2"}},
    {"vector_in.in_layer", {"time_text_embed.text_embedder.linear_1"}},
    {"vector_in.out_layer", {"time_text_embed.text_embedder.linear_2"}},
    {"final_layer.linear", {"proj_out"}},
    {"final_layer.adaLN_modulation.1", {"norm_out.linear"}},
}};

constexpr std::array<Row, 14> kDouble{{
    {"img_mod.lin", {"norm1.linear"}},
    {"txt_mod.lin", {"norm1_context.linear"}},
    {"img_attn.qkv", {"attn.to_q", "attn.to_k", "attn.to_v"}},
    {"txt_attn.qkv", {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"}},
    {"img_attn.norm.query_norm", {"attn.norm_q"}},
    {"img_attn.norm.key_norm", {"attn.norm_k"}},
    {"txt_attn.norm.query_norm", {"attn.norm_added_q"}},
    {"txt_attn.norm.key_norm", {"attn.norm_added_k"}},
    {"img_attn.proj", {"attn.to_out.0"}},
    {"txt_attn.proj", {"attn.to_add_out"}},
    {"img_mlp.0", {"ff.net.0.proj"}},
    {"img_mlp.2", {"ff.net.2"}},
    {"txt_mlp.0", {"ff_context.net.0.proj"}},
    {"txt_mlp.2", {"ff_context.net.2"}},
}};

constexpr std::array<Row, 5> kSingle{{
    {"modulation.lin", {"norm.linear"}},
    {"linear1", {"attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"}},
    {"linear2", {"proj_out"}},
    {"norm.query_norm", {"attn.norm_q"}},
    {"norm.key_norm", {"attn.norm_k"}},
}};

constexpr std::string_view kMarker = "double_blocks.0.img_attn.norm.key_norm.scale";

/// What stands before black-forest-labs' names in this file; nothing if the file has another layout.
std::optional<std::string> prefix_of(const TensorTable& table) {
  for (const std::string prefix : {"", "model.diffusion_model."})
    if (table.tensors.contains(prefix + std::string(kMarker))) return prefix;
  return std::nullopt;
}

/// "double_blocks.12.img_mod.lin.weight" as its parts; `blocks` is "" outside the blocks.
struct Name {
  std::string_view blocks;  // "double_blocks"
  std::string_view index;   // "12"
  std::string_view module;  // "img_mod.lin"
  std::string_view kind;    // "weight", "bias", "scale"; or what else stands there
};

Name parse(std::string_view name) {
  Name parts;
  for (const std::string_view blocks : {"double_blocks", "single_blocks"}) {
    if (!name.starts_with(blocks) || name.substr(blocks.size(), 1) != ".") continue;
    parts.blocks = blocks;
    name.remove_prefix(blocks.size() + 1);
    parts.index = name.substr(0, name.find('.'));
    name.remove_prefix(std::min(parts.index.size() + 1, name.size()));
  }
  const std::size_t dot = std::min(name.rfind('.'), name.size());
  parts.module = name.substr(0, dot);
  parts.kind = name.substr(std::min(dot + 1, name.size()));
  return parts;
}

/// The row of a module, with what stands before its diffusers names; {nullptr, ""} for an unknown one.
std::pair<const Row*, std::string> find_row(const Name& name) {
  const auto in = [&](const auto& rows, const std::string& before) -> std::pair<const Row*, std::string> {
    const auto at =
        std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.bfl == name.module; });
    return {at == rows.end() ? nullptr : &*at, before};
  };
  if (name.kind != "weight" && name.kind != "bias" && name.kind != "scale") return {nullptr, ""};
  if (name.blocks.empty()) return in(kOutside, "");
  const bool is_double = name.blocks == "double_blocks";
  const std::string before =
      fmt::format("{}.{}.", is_double ? "transformer_blocks" : "single_transformer_blocks", name.index);
  return is_double ? in(kDouble, before) : in(kSingle, before);
}

/// The rows of a tensor for each of a row's diffusers modules.
void add_slices(KeyMap& keys, const Row& row, const std::string& before, const std::string& kind,
                const Slice& all, std::int64_t width) {
  std::int64_t first = 0;
  for (std::size_t i = 0; i < row.diffusers.size() && !row.diffusers.at(i).empty(); ++i) {
    const bool is_last = i + 1 == row.diffusers.size() || row.diffusers.at(i + 1).empty();
    const std::int64_t rows = is_last ? all.rows - first : std::min(width, all.rows - first);
    keys[fmt::format("{}{}.{}", before, row.diffusers.at(i), kind)] = {{all.file_name, first, rows}};
    first += rows;
  }
}

}  // namespace

bool is_bfl(const TensorTable& table) {
  return prefix_of(table).has_value();
}

KeyMap bfl_key_map(const TensorTable& table) {
  const std::string prefix = prefix_of(table).value_or("");
  const std::int64_t width = PartShapes(table, prefix).size("img_in.weight", 0, 2);
  KeyMap keys;
  for (const auto& [file_name, tensor] : table.tensors) {
    if (!file_name.starts_with(prefix)) continue;
    const Name name = parse(std::string_view(file_name).substr(prefix.size()));
    const auto [row, before] = find_row(name);
    if (row == nullptr) continue;
    const std::string kind(name.kind == "scale" ? "weight" : name.kind);
    const Slice all = weights::whole(file_name, tensor);
    if (row->bfl == "final_layer.adaLN_modulation.1") {
      const std::int64_t half = all.rows / 2;
      keys["norm_out.linear." + kind] = {{file_name, half, all.rows - half}, {file_name, 0, half}};
    } else {
      add_slices(keys, *row, before, kind, all, width);
    }
  }
  return keys;
}

nlohmann::json bfl_config(const TensorTable& table, const nlohmann::json& base_config) {
  const std::string prefix = prefix_of(table).value_or("");
  std::set<std::string_view> double_blocks;
  std::set<std::string_view> single_blocks;
  for (const auto& [file_name, tensor] : table.tensors) {
    if (!file_name.starts_with(prefix)) continue;
    const Name name = parse(std::string_view(file_name).substr(prefix.size()));
    if (!name.blocks.empty())
      (name.blocks == "double_blocks" ? double_blocks : single_blocks).insert(name.index);
  }
  const PartShapes shapes(table, prefix);
  const std::int64_t width = shapes.size("img_in.weight", 0, 2);
  const std::int64_t head_dim = shapes.size(std::string(kMarker), 0, 1);
  if (width % head_dim != 0)
    shapes.fail(fmt::format("a width of {} is no multiple of the head size {}", width, head_dim));

  nlohmann::json axes = {head_dim / 8, head_dim / 16 * 7, head_dim / 16 * 7};
  const bool same_heads =
      base_config.is_object() && base_config.value("attention_head_dim", nlohmann::json()) == head_dim;
  if (same_heads && base_config.contains("axes_dims_rope"))
    axes = base_config["axes_dims_rope"];
  else if (head_dim % 32 != 0)  // three even numbers
    shapes.fail(fmt::format("the rotary axes of heads of size {} are not in the file and follow from no rule",
                            head_dim),
                "--base FOLDER with a transformer/config.json of the same sizes");

  return {{"_class_name", "FluxTransformer2DModel"},
          {"patch_size", 1},
          {"attention_head_dim", head_dim},
          {"axes_dims_rope", axes},
          {"guidance_embeds", shapes.has("guidance_in.in_layer.weight")},
          {"in_channels", shapes.size("img_in.weight", 1, 2)},
          {"out_channels", shapes.size("final_layer.linear.weight", 0, 2)},
          {"joint_attention_dim", shapes.size("txt_in.weight", 1, 2)},
          {"num_attention_heads", width / head_dim},
          {"num_layers", double_blocks.size()},
          {"num_single_layers", single_blocks.size()},
          {"pooled_projection_dim", shapes.size("vector_in.in_layer.weight", 1, 2)}};
}

weights::Component bfl_transformer(TensorTable table, const nlohmann::json& base_config) {
  weights::Component transformer;
  transformer.name = "transformer";
  transformer.class_name = "FluxTransformer2DModel";
  transformer.folder = table.files.empty() ? "" : table.files.front().parent_path();
  transformer.config = bfl_config(table, base_config);
  transformer.keys = bfl_key_map(table);
  transformer.table = std::move(table);
  return transformer;
}

}  // namespace xdit::models
