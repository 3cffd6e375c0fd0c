#pragma once
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "models/registry.h"
#include "models/vae/tables.h"
#include "text/tables/clip.h"

/// What families share in describing a pipeline. Faults are Error(kModel).
namespace xdit::models {

/// A component, which must be there and of one of these classes.
[[nodiscard]] weights::Component& part(Model& model, const std::string& name,
                                       std::initializer_list<std::string_view> classes);
/// Its config's place, for errors.
[[nodiscard]] std::string config_place(const weights::Component& component);
/// `what` says what must be equal.
void require_equal(const Model& model, const std::string& what, std::int64_t a, std::int64_t b);

/// Canonical keys of the component, and the network.
[[nodiscard]] Network clip_network(weights::Component& component, const text::ClipConfig& config);
/// Drops settings of a component's config that diffusers' pipeline of the family does not look at.
void drop_settings(weights::Component& component, std::initializer_list<const char*> keys);

[[nodiscard]] Network vae_network(weights::Component& component, const VaeConfig& config);

/// Which of `published` the user means by NAME or OWNER/NAME in any case, or "".
[[nodiscard]] std::string builtin_name(const std::string& name, const std::vector<std::string>& published);
/// A model without files: its names and the components' configs.
void set_builtin(weights::ModelFiles& files, const std::string& name, const std::string& pipeline);
void add_builtin_part(weights::ModelFiles& files, const std::string& name, const std::string& class_name,
                      nlohmann::json config);
/// Configs of CLIP's text encoders, that of ViT-L/14 and of the VAE, as published without what only some
/// name.
[[nodiscard]] nlohmann::json builtin_clip(std::int64_t width, std::int64_t mlp_width, std::int64_t layers,
                                          std::int64_t heads, const char* activation);
[[nodiscard]] nlohmann::json builtin_clip_l();
[[nodiscard]] nlohmann::json builtin_vae(std::int64_t latent_channels, double scaling_factor);

}  // namespace xdit::models
