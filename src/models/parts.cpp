#include "models/parts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

#include "core/error.h"

namespace xdit::models {
namespace {

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

weights::Component& part(Model& model, const std::string& name,
                         std::initializer_list<std::string_view> classes) {
  const auto found = model.files.components.find(name);
  if (found == model.files.components.end())
    throw Error(ExitCode::kModel, fmt::format("no component {}", name), model.files.path.string(),
                "the whole folder as published, with model_index.json");
  weights::Component& component = found->second;
  if (std::find(classes.begin(), classes.end(), component.class_name) == classes.end())
    throw Error(
        ExitCode::kModel,
        fmt::format("{}: expected a {}, found '{}'", name, fmt::join(classes, " or "), component.class_name),
        model.files.path.string());
  return component;
}

std::string config_place(const weights::Component& component) {
  return (component.folder / "config.json").string();
}

void require_equal(const Model& model, const std::string& what, std::int64_t a, std::int64_t b) {
  if (a != b)
    throw Error(ExitCode::kModel, fmt::format("{} do not fit each other: {} and {}", what, a, b),
                model.files.path.string());
}

Network clip_network(weights::Component& component, const text::ClipConfig& config) {
  component.keys = text::clip_keys(component.keys);
  weights::Ignored ignored{"text_model.embeddings.position_ids"};
  if (config.projection == 0) ignored.emplace_back("text_projection.");
  return {Role::kEncoder, component.name, text::clip_parameters(config), std::move(ignored), {}};
}

void drop_settings(weights::Component& component, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (component.config.contains(key) && !component.config.at(key).is_null()) component.config.erase(key);
}

Network vae_network(weights::Component& component, const VaeConfig& config) {
  component.keys = vae_keys(component.keys);
  return {Role::kDecoder, component.name, vae_decoder_parameters(config), {"encoder.", "quant_conv."}, {}};
}

std::string builtin_name(const std::string& name, const std::vector<std::string>& published) {
  const std::size_t slash = name.find('/');
  const std::string bare = lower_case(name.substr(slash == std::string::npos ? 0 : slash + 1));
  const auto found = std::find_if(published.begin(), published.end(),
                                  [&](const std::string& known) { return lower_case(known) == bare; });
  return found == published.end() ? "" : *found;
}

void set_builtin(weights::ModelFiles& files, const std::string& name, const std::string& pipeline) {
  files.path = name;
  files.name = name;
  files.class_name = pipeline;
}

void add_builtin_part(weights::ModelFiles& files, const std::string& name, const std::string& class_name,
                      nlohmann::json config) {
  weights::Component& made = files.components[name];
  made.name = name;
  made.class_name = class_name;
  made.folder = name;
  made.config = std::move(config);
}

nlohmann::json builtin_clip(std::int64_t width, std::int64_t mlp_width, std::int64_t layers,
                            std::int64_t heads, const char* activation) {
  return {{"vocab_size", 49408},
          {"hidden_size", width},
          {"intermediate_size", mlp_width},
          {"num_hidden_layers", layers},
          {"num_attention_heads", heads},
          {"max_position_embeddings", 77},
          {"hidden_act", activation},
          {"eos_token_id", 2}};
}

nlohmann::json builtin_clip_l() {
  return builtin_clip(768, 3072, 12, 12, "quick_gelu");
}

nlohmann::json builtin_vae(std::int64_t latent_channels, double scaling_factor) {
  return {{"block_out_channels", {128, 256, 512, 512}},
          {"layers_per_block", 2},
          {"latent_channels", latent_channels},
          {"norm_num_groups", 32},
          {"scaling_factor", scaling_factor}};
}

}  // namespace xdit::models
