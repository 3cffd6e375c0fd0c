#include "models/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/nearest.h"
#include "models/flux/builtin.h"
#include "models/flux/family.h"

namespace xdit::models {
namespace {

struct Family {
  const char* name;
  const char* pipeline;
  void (*describe)(Model& model);
  std::vector<std::string> (*builtin_names)();
  bool (*builtin)(const std::string& name, weights::ModelFiles& files);
};
constexpr std::array kFamilies{
    Family{"flux", "FluxPipeline", describe_flux, flux_builtin_names, flux_builtin},
};

const Family& family_of(const weights::ModelFiles& files) {
  std::vector<std::string> known;
  for (const Family& family : kFamilies) {
    if (files.class_name == family.pipeline) return family;
    known.emplace_back(family.pipeline);
  }
  throw Error(ExitCode::kModel, fmt::format("a pipeline of class '{}' is not supported", files.class_name),
              (files.path / "model_index.json").string(), suggest(files.class_name, known));
}

bool open_builtin(const std::string& name, weights::ModelFiles& files) {
  return std::any_of(kFamilies.begin(), kFamilies.end(),
                     [&](const Family& family) { return family.builtin(name, files); });
}

}  // namespace

Model open(const std::string& name, const std::filesystem::path& base,
           const std::filesystem::path& tokenizers, bool dummy) {
  Model model;
  model.dummy = dummy;
  if (!dummy || !open_builtin(name, model.files))
    model.files = weights::open_model(weights::find_model(name), base, tokenizers);
  const Family& family = family_of(model.files);
  model.family = family.name;
  family.describe(model);
  if (!dummy)
    for (Network& network : model.networks) {
      const weights::Component& component = model.files.components.at(network.component);
      network.placed = weights::place(network.parameters, component.table, component.keys, network.ignored);
    }
  return model;
}

std::vector<FamilyInfo> families() {
  std::vector<FamilyInfo> all;
  all.reserve(kFamilies.size());
  for (const Family& family : kFamilies)
    all.push_back({family.name, family.pipeline, family.builtin_names()});
  return all;
}

}  // namespace xdit::models
