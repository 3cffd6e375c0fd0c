#include "cli/layers.h"

#include <fmt/format.h>

#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "config/samplers.h"
#include "core/error.h"
#include "core/json.h"
#include "output/path_template.h"
#include "schedulers/schedule.h"
#include "weights/model_files.h"

namespace xdit::cli {
namespace {

constexpr const char* kModelSettings = "xdit-gen.yaml";

// The sampler that a scheduler_config.json names; "" where it names none. A class that no sampler here is
// stays as it stands: an error, unless something asks for another one.
std::string scheduler_of(const nlohmann::json& config) {
  std::string type = text_at(config, "_class_name");
  const std::string algorithm = text_at(config, "algorithm_type");
  const std::optional<config::SpelledSampler> sampler = config::find_sampler(type);
  if (!sampler) return type;
  if (sampler->name != "dpm++-2m" || algorithm.empty() || algorithm == "dpmsolver++")
    return std::string(sampler->name);
  return algorithm == "sde-dpmsolver++" ? "dpm++-2m-sde" : type + " with " + algorithm;
}

// Where the guidance scale is that of classifier-free guidance, it has two names, and the model embeds none.
// A source that says both, as what --dry-run prints does, says 0 for none; one that wins must not differ.
void unify_guidance(std::vector<config::Layer>& layers, const std::string& model) {
  bool overridden = false;
  for (auto of = layers.rbegin(); of != layers.rend(); ++of) {
    config::Layer& layer = *of;
    const config::Setting* scale = config::winner({&layer, 1}, "sampling.cfg_scale");
    const config::Setting* guidance = config::winner({&layer, 1}, "sampling.guidance");
    const bool wins = !overridden;
    overridden = overridden || scale != nullptr || guidance != nullptr;
    if (scale != nullptr && guidance != nullptr) {
      config::RunSpec said;
      for (const config::Setting* one : {scale, guidance}) {
        const config::Key& key = *config::find_key(one->key);
        key.set(said, *one, key);
      }
      const auto& [cfg_scale, embedded] = std::pair(said.sampling.cfg_scale, said.sampling.guidance);
      if (wins && embedded != 0 && embedded != cfg_scale)
        throw Error(ExitCode::kUsage,
                    fmt::format("sampling.guidance={} and sampling.cfg_scale={} are one setting on {}",
                                embedded, cfg_scale, model),
                    guidance->where, fmt::format("--cfg-scale {} alone", cfg_scale));
      std::erase_if(layer, [](const config::Setting& one) { return one.key == "sampling.guidance"; });
    }
    for (config::Setting& setting : layer)
      if (setting.key == "sampling.guidance") setting.key = "sampling.cfg_scale";
  }
  config::Setting none = layers.front().front();
  none.key = "sampling.guidance";
  none.values = {"0"};
  layers.front().push_back(none);
}

// Another model would give another picture.
void compare_model(const output::PictureRecord& record, const models::Model& model,
                   config::Resolved& resolved) {
  if (model.dummy) return;
  const std::string hash = weights::model_hash(model.files).substr(0, 10);
  if (hash != record.model_hash)
    resolved.warnings.push_back(fmt::format("the picture was made with {} (hash {}), not with {} ({})",
                                            record.model, record.model_hash, model.files.name, hash));
}

// A fault is where the setting was made.
void check_samplers(const config::RunSpec::Sampling& sampling, const launch::Models& models,
                    std::span<const config::Layer> layers) {
  try {
    for (const models::Model* model : {&models.model, models.refiner})
      if (model != nullptr)
        static_cast<void>(schedulers::schedule_of({.name = sampling.scheduler,
                                                   .sigmas = sampling.sigmas,
                                                   .timestep_spacing = sampling.timestep_spacing,
                                                   .prediction = sampling.prediction,
                                                   .steps = sampling.steps},
                                                  model->files.scheduler_config));
  } catch (const Error& error) {
    for (const auto& [name, key] :
         {std::pair{"--steps", "sampling.steps"}, {"sampling.timestep_spacing", "sampling.timestep_spacing"}})
      if (const config::Setting* setting = config::winner(layers, key);
          error.where() == name && setting != nullptr)
        throw Error(error.code(), error.message(), setting->where, error.fix());
    throw;
  }
}

bool is_of_flow_matching(const models::Model& model) {
  return config::trained_model(model.files.scheduler_config).flow_matching;
}

bool hears(const models::Model& model, std::string_view key) {
  if (key == "sampling.shift") return is_of_flow_matching(model);
  return key != "sampling.guidance" || model.takes_guidance || model.guidance_is_cfg;
}

// Settings that shape pictures of other models.
void refuse_unheard(const config::RunSpec::Sampling& said, const models::Model& model,
                    std::span<const config::Layer> layers) {
  const auto check = [&](const std::string& key, double value, const std::string& why,
                         const std::string& fix) {
    if (hears(model, key)) return;
    const config::Setting* setting = config::winner(layers, key);
    throw Error(ExitCode::kUsage, fmt::format("{}={}: {} {}", key, value, model.files.name, why),
                setting != nullptr ? setting->where : "", fix);
  };
  if (said.shift)
    check("sampling.shift", *said.shift, "is no model of flow matching",
          "--set sampling.shift=auto, or --set sampling.timestep_spacing=trailing");
  if (said.guidance > 0)
    check("sampling.guidance", said.guidance, "embeds no guidance",
          "--guidance 0, or --cfg-scale for classifier-free guidance");
}

// Settings that are told to no network of the run.
void warn_of_unheard(const config::RunSpec::Sampling& said, const launch::Models& models,
                     std::vector<std::string>& warnings) {
  const config::RunSpec::Sampling unsaid;
  const auto warn = [&](const char* key, const std::string& why) {
    warnings.push_back(fmt::format("sampling.{} has no effect {}", key, why));
  };
  const config::Sampler& sampler = *config::sampler_named(said.scheduler);
  if (sampler.can.sigmas == "default" && said.timestep_spacing != unsaid.timestep_spacing)
    warn("timestep_spacing", fmt::format("on {}, which has a schedule of its own", said.scheduler));
  const std::string no_sizes = "on " + models.model.files.name + ", which is told no sizes";
  if (!models.model.embeds_sizes) {
    if (said.original_size) warn("original_size", no_sizes);
    if (said.crop) warn("crop", no_sizes);
    if (said.target_size) warn("target_size", no_sizes);
  }
  if (models.refiner == nullptr) {
    if (said.refiner_start != unsaid.refiner_start) warn("refiner_start", "without --refiner");
    if (said.aesthetic_score != unsaid.aesthetic_score) warn("aesthetic_score", "without --refiner");
    if (said.negative_aesthetic_score != unsaid.negative_aesthetic_score)
      warn("negative_aesthetic_score", "without --refiner");
  }
}

// What finishes the pictures, if anything is asked to.
std::optional<models::Model> open_refiner(const config::RunSpec::Model& asked, const models::Model& model) {
  if (model.refines)
    throw Error(ExitCode::kUsage, "SDXL's refiner finishes the pictures of another model", asked.path,
                "-m MODEL --refiner " + asked.path);
  if (asked.refiner.empty()) return std::nullopt;
  models::Model refiner = models::open_refiner(asked.refiner, model, asked.base, asked.tokenizers);
  if (!refiner.refines)
    throw Error(ExitCode::kUsage, fmt::format("a model of the family {} refines nothing", refiner.family),
                asked.refiner, "--refiner with SDXL's refiner");
  if (model.family != "sdxl" || refiner.shape.latent_channels != model.shape.latent_channels ||
      refiner.shape.latent_scale != model.shape.latent_scale)
    throw Error(ExitCode::kUsage,
                fmt::format("SDXL's refiner does not know the latents of {}", model.files.name),
                asked.refiner, "-m with an SDXL model");
  return refiner;
}

}  // namespace

std::vector<config::Layer> model_defaults(const models::Model& model) {
  const auto setting = [&](const char* key, std::string value) {
    return config::Setting{.key = key,
                           .values = {std::move(value)},
                           .where = "default of " + model.files.name,
                           .code = ExitCode::kModel};
  };
  const models::Defaults& defaults = model.defaults;
  std::vector<config::Layer> layers{
      {setting("sampling.steps", fmt::format("{}", defaults.steps)),
       setting("sampling.guidance", fmt::format("{}", defaults.guidance)),
       setting("sampling.max_sequence_length", fmt::format("{}", defaults.max_sequence_length))}};
  if (const std::string scheduler = scheduler_of(model.files.scheduler_config); !scheduler.empty())
    layers.front().push_back(setting("sampling.scheduler", scheduler));
  if (defaults.width) layers.front().push_back(setting("image.width", fmt::format("{}", *defaults.width)));
  if (defaults.height) layers.front().push_back(setting("image.height", fmt::format("{}", *defaults.height)));
  const std::filesystem::path own = model.files.path / kModelSettings;
  std::error_code ignored;
  if (std::filesystem::is_regular_file(own, ignored)) layers.push_back(config::read_model_settings(own));
  return layers;
}

config::Resolved resolve_for(const launch::Models& models, std::vector<config::Layer> layers,
                             const std::function<std::uint64_t()>& draw_seed) {
  if (models.model.guidance_is_cfg) unify_guidance(layers, models.model.files.name);
  config::Resolved resolved = config::resolve(layers, draw_seed);
  config::RunSpec::Sampling& sampling = resolved.spec.sampling;
  sampling.scheduler = config::sampler_for(sampling.scheduler, is_of_flow_matching(models.model));
  check_samplers(sampling, models, layers);
  refuse_unheard(sampling, models.model, layers);
  warn_of_unheard(sampling, models, resolved.warnings);
  return resolved;
}

Prepared prepare(const GenerateOptions& options, const char* const* environment,
                 const std::function<std::uint64_t()>& draw_seed) {
  if (options.empty_stdin)
    throw Error(ExitCode::kUsage, "there is no prompt on stdin", "--prompt -",
                "echo \"a fox\" | xdit-gen -p - ..., or -p \"\" for an empty prompt");
  std::vector<config::Layer> layers{options.fallback};
  std::optional<output::PictureRecord> record;
  if (!options.profile.empty()) layers.push_back(config::read_profile(options.profile));
  layers.push_back(config::read_environment(environment));
  if (!options.from_image.empty()) {
    record = output::read_record(options.from_image);
    layers.push_back(output::replay_layer(*record, options.from_image));
  }
  layers.push_back(options.settings);
  layers.push_back(options.job);
  if (record && config::winner(layers, "model.path") == nullptr)
    throw Error(
        ExitCode::kUsage,
        fmt::format("no model: the picture was made with {} (hash {})", record->model, record->model_hash),
        options.from_image, "-m DIR, the folder of that model");

  const config::RunSpec::Model asked = config::resolve(layers, [] { return std::uint64_t{0}; }).spec.model;
  models::Model model =
      models::open(asked.path, asked.base, asked.tokenizers, asked.load_format == config::LoadFormat::kDummy);
  std::optional<models::Model> refiner = open_refiner(asked, model);
  for (config::Layer& layer : layers)  // of a picture that another model made
    std::erase_if(layer, [&](const config::Setting& setting) {
      const bool scales = model.guidance_is_cfg && setting.key == "sampling.guidance";  // by cfg_scale
      return record && setting.where == options.from_image && (scales || !hears(model, setting.key));
    });
  std::vector<config::Layer> defaults = model_defaults(model);
  if (config::winner(layers, "sampling.scheduler") != nullptr)  // whatever the model's own is
    std::erase_if(defaults.front(), [](const auto& setting) { return setting.key == "sampling.scheduler"; });
  layers.insert(layers.begin(), defaults.begin(), defaults.end());
  config::Resolved resolved = resolve_for({model, refiner ? &*refiner : nullptr}, layers, draw_seed);
  resolved.spec.date = output::local_date(std::time(nullptr));
  if (record) compare_model(*record, model, resolved);
  if (record && record->refiner && !refiner)
    resolved.warnings.push_back(fmt::format("the picture was finished by {}: --refiner", *record->refiner));
  return {std::move(model), std::move(refiner), std::move(resolved), std::move(layers)};
}

}  // namespace xdit::cli
