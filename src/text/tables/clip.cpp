#include "text/tables/clip.h"

#include <fmt/format.h>

#include "weights/config_reader.h"
#include "weights/parameter_list.h"

namespace xdit::text {

ClipConfig read_clip_config(const weights::Component& component) {
  const weights::ConfigReader read(component.config, (component.folder / "config.json").string());
  ClipConfig clip;
  clip.vocabulary = read.size("vocab_size", clip.vocabulary);
  clip.width = read.size("hidden_size", clip.width);
  clip.mlp_width = read.size("intermediate_size", clip.mlp_width);
  clip.layers = read.count("num_hidden_layers", clip.layers);
  clip.heads = read.size("num_attention_heads", clip.heads);
  clip.positions = read.size("max_position_embeddings", clip.positions);
  clip.eos_token_id = read.integer("eos_token_id", 49407);
  clip.activation = read.text("hidden_act", clip.activation);
  clip.eps = read.number("layer_norm_eps", clip.eps);
  if (component.class_name.ends_with("WithProjection")) clip.projection = read.size("projection_dim", 512);
  clip.transposed = component.keys.contains("text_projection");
  if (clip.width % clip.heads != 0)
    read.refuse("num_attention_heads", fmt::format("a divisor of {}", clip.width));
  return clip;
}

std::vector<weights::Parameter> clip_parameters(const ClipConfig& config) {
  weights::ParameterList list;
  list.tensor("text_model.embeddings.token_embedding.weight", {config.vocabulary, config.width});
  list.tensor("text_model.embeddings.position_embedding.weight", {config.positions, config.width});
  for (std::int64_t i = 0; i < config.layers; ++i) {
    const std::string at = fmt::format("text_model.encoder.layers.{}.", i);
    list.norm(at + "layer_norm1", config.width, true);
    list.stacked(at + "self_attn.qkv",
                 {{at + "self_attn.q_proj", config.width},
                  {at + "self_attn.k_proj", config.width},
                  {at + "self_attn.v_proj", config.width}},
                 config.width);
    list.linear(at + "self_attn.out_proj", config.width, config.width);
    list.norm(at + "layer_norm2", config.width, true);
    list.linear(at + "mlp.fc1", config.width, config.mlp_width);
    list.linear(at + "mlp.fc2", config.mlp_width, config.width);
  }
  list.norm("text_model.final_layer_norm", config.width, true);
  if (config.projection > 0 && config.transposed)
    list.tensor("text_projection", {config.width, config.projection});
  else if (config.projection > 0)
    list.linear("text_projection", config.width, config.projection, false);
  return list.take();
}

weights::KeyMap clip_keys(const weights::KeyMap& names) {
  weights::KeyMap keys;
  for (const auto& [name, slices] : names) {
    const bool bare =
        name.starts_with("embeddings.") || name.starts_with("encoder.") || name.starts_with("final_");
    keys[bare ? "text_model." + name : name] = slices;
  }
  return keys;
}

}  // namespace xdit::text
