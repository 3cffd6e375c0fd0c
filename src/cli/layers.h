#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "cli/generate_options.h"
#include "config/settings.h"
#include "launch/launch.h"
#include "models/registry.h"
#include "output/metadata.h"

namespace xdit::cli {

/// A run whose models are open and whose settings are all known.
struct Prepared {
  models::Model model;
  std::optional<models::Model> refiner;
  config::Resolved resolved;
  std::vector<config::Layer> layers;  ///< that it was resolved from
  [[nodiscard]] launch::Models models() const { return {model, refiner ? &*refiner : nullptr}; }
};

/// Merges built-in < model's default < profile < environment < image < flags. Values are checked before the
/// model is opened.
[[nodiscard]] Prepared prepare(const GenerateOptions& options, const char* const* environment,
                               const std::function<std::uint64_t()>& draw_seed);

/// Resolves `layers`, the first of which holds the model's defaults, for these models: Error(kUsage) where
/// they do not fit, a warning where a setting reaches neither.
[[nodiscard]] config::Resolved resolve_for(const launch::Models& models, std::vector<config::Layer> layers,
                                           const std::function<std::uint64_t()>& draw_seed);

/// What the model wants where the user says nothing: its family's, then those of xdit-gen.yaml in its folder.
[[nodiscard]] std::vector<config::Layer> model_defaults(const models::Model& model);

}  // namespace xdit::cli
