#include "models/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/nearest.h"
#include "models/flux/builtin.h"
#include "models/flux/family.h"
#include "models/sdxl/builtin.h"
#include "models/sdxl/family.h"
#include "models/sdxl/ldm.h"

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
    Family{"sdxl", "StableDiffusionXLPipeline", describe_sdxl, sdxl_builtin_names, sdxl_builtin},
    Family{"sdxl-refiner", "StableDiffusionXLImg2ImgPipeline", describe_refiner, refiner_builtin_names,
           refiner_builtin},
    Family{"sd", "StableDiffusionPipeline", describe_sd, sd_builtin_names, sd_builtin},
};

/// Pipelines of these families that make something else than a picture from a text, by a part of their names.
struct Other {
  std::string_view part;
  std::string_view what;
};
constexpr std::array kOthers{
    Other{"Inpaint", "it fills in a part of a picture"}, Other{"Pix2Pix", "it edits a picture"},
    Other{"ControlNet", "it follows another picture"},   Other{"Adapter", "it follows another picture"},
    Other{"Upscale", "it enlarges a picture"},           Other{"Img2Img", "it works on a picture"},
};

const Family& family_of(const weights::ModelFiles& files) {
  std::vector<std::string> known;
  for (const Family& family : kFamilies) {
    if (files.class_name == family.pipeline) return family;
    known.emplace_back(family.pipeline);
  }
  const std::string place = (files.path / "model_index.json").string();
  const std::string what = fmt::format("a pipeline of class '{}' is not supported", files.class_name);
  for (const Other& other : kOthers)
    if (files.class_name.find(other.part) != std::string::npos)
      throw Error(ExitCode::kModel, fmt::format("{}: {}", what, other.what), place,
                  "a model that makes pictures from text");
  throw Error(ExitCode::kModel, what, place, suggest(files.class_name, known));
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
    model.files = weights::open_model(weights::find_model(name), base, tokenizers, is_ldm);
  if (model.files.single_file && is_ldm(*model.files.single_file)) open_ldm(model.files);
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

Model open_refiner(const std::string& name, const Model& model, const std::filesystem::path& base,
                   const std::filesystem::path& tokenizers) {
  namespace fs = std::filesystem;
  if (model.dummy) return open(name, base, tokenizers, true);
  const fs::path place = weights::find_model(name);
  std::error_code ignored;
  const fs::path own = fs::is_directory(place, ignored) ? place : fs::absolute(place).parent_path();
  const fs::path folder = fs::is_regular_file(own / "model_index.json", ignored) ? own : base;
  const bool has_tokenizer = !folder.empty() && fs::is_directory(folder / "tokenizer_2", ignored);
  const auto shared = model.files.tokenizers.find("tokenizer_2");
  fs::path from = tokenizers;
  if (from.empty() && !has_tokenizer && shared != model.files.tokenizers.end())
    from = shared->second.parent_path();
  return open(place.string(), folder, from, false);
}

std::vector<FamilyInfo> families() {
  std::vector<FamilyInfo> all;
  all.reserve(kFamilies.size());
  for (const Family& family : kFamilies)
    all.push_back({family.name, family.pipeline, family.builtin_names()});
  return all;
}

}  // namespace xdit::models
