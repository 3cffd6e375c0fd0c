#include "models/sdxl/ldm.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "models/sdxl/builtin.h"
#include "models/sdxl/ldm_config.h"
#include "models/sdxl/ldm_keys.h"
#include "weights/describe.h"

namespace xdit::models {
namespace {

using nlohmann::json;
using weights::Component;
using weights::ModelFiles;
using weights::TensorTable;

constexpr std::string_view kUnetPrefix = "model.diffusion_model.";
constexpr std::string_view kVaePrefix = "first_stage_model.";
constexpr std::string_view kLdmMarker = "model.diffusion_model.input_blocks.0.0.weight";
constexpr const char* kSdxl = "StableDiffusionXLPipeline";
constexpr const char* kRefiner = "StableDiffusionXLImg2ImgPipeline";
constexpr const char* kSd = "StableDiffusionPipeline";

/// Where the files keep a text encoder, and how it is written.
struct TextPart {
  std::string_view prefix;
  const char* pipeline;
  const char* component;
  const char* class_name;
  bool openclip;
};
constexpr std::array<TextPart, 5> kTextParts{{
    {"conditioner.embedders.0.transformer.", kSdxl, "text_encoder", "CLIPTextModel", false},
    {"conditioner.embedders.1.model.", kSdxl, "text_encoder_2", "CLIPTextModelWithProjection", true},
    {"conditioner.embedders.0.model.", kRefiner, "text_encoder_2", "CLIPTextModelWithProjection", true},
    {"cond_stage_model.transformer.", kSd, "text_encoder", "CLIPTextModel", false},
    {"cond_stage_model.model.", kSd, "text_encoder", "CLIPTextModel", true},
}};

// What no picture needs: schedules, averaged weights, the VAE's encoder, what trainers and other programs
// leave.
constexpr std::array<std::string_view, 19> kUnused{"alphas_cumprod",
                                                   "betas",
                                                   "denoiser.",
                                                   "embedding_manager.",
                                                   "global_step",
                                                   "log_one_minus_alphas_cumprod",
                                                   "logvar",
                                                   "lvlb_weights",
                                                   "model_ema.",
                                                   "posterior_",
                                                   "scale_factor",
                                                   "sqrt_",
                                                   "v_pred",
                                                   "ztsnr",
                                                   "first_stage_model.encoder.",
                                                   "first_stage_model.loss.",
                                                   "first_stage_model.quant_conv.",
                                                   "cond_stage_model.transformer.text_projection.",
                                                   "conditioner.embedders.0.transformer.text_projection."};
constexpr std::array<std::string_view, 3> kUnusedEnds{".position_ids", ".logit_scale", ".attn_mask"};

/// Names or their beginnings, and what a file with them is.
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kOtherFiles{{
    {"edm_", "a model of EDM's noise levels (Karras et al. 2022)"},
    {"control_model.", "a ControlNet, which follows another picture"},
    {"model.diffusion_model.label_emb.weight", "an upscaler"},
}};

bool holds(const TensorTable& table, std::string_view start) {
  const auto first = table.tensors.lower_bound(std::string(start));
  return first != table.tensors.end() && first->first.starts_with(start);
}

bool is_unused(std::string_view name) {
  return std::any_of(kUnused.begin(), kUnused.end(), [&](auto start) { return name.starts_with(start); }) ||
         std::any_of(kUnusedEnds.begin(), kUnusedEnds.end(), [&](auto end) { return name.ends_with(end); });
}

/// Takes the tensors of a part out of the file.
TensorTable take(TensorTable& table, std::string_view prefix) {
  TensorTable part;
  part.files = table.files;
  for (auto at = table.tensors.lower_bound(std::string(prefix));
       at != table.tensors.end() && at->first.starts_with(prefix);)
    part.tensors.insert(table.tensors.extract(at++));
  return part;
}

/// The pipeline's class, from where its text encoders are, else the base's.
std::string pipeline_of(const ModelFiles& files, const TensorTable& table) {
  const auto* const part = std::find_if(kTextParts.begin(), kTextParts.end(),
                                        [&](const TextPart& text) { return holds(table, text.prefix); });
  const std::string found = part == kTextParts.end() ? "" : part->pipeline;
  if (found.empty() && files.class_name.empty())
    weights::fail_model(files.path, "the file holds no text encoder",
                        "--base FOLDER, a diffusers folder with one");
  const bool shares = found == kRefiner && files.class_name == kSdxl;
  if (!found.empty() && !files.class_name.empty() && found != files.class_name && !shares)
    weights::fail_model(files.path,
                        fmt::format("the file is a {}, and its base folder is a {}", found, files.class_name),
                        "--base FOLDER of the same kind");
  return found.empty() ? files.class_name : found;
}

/// Of SDXL's folder, a refiner's file can use the second encoder, its tokenizer and the VAE.
void leave_what_refiner_shares(ModelFiles& files) {
  for (const char* other : {"text_encoder", "unet"}) files.components.erase(other);
  files.tokenizers.erase("tokenizer");
  files.scheduler_config = nullptr;
  files.settings = refiner_settings();
}

/// What the shapes say, and beside it the base's config where that is of the same widths, else `shared`,
/// which holds for widths that `unit` divides.
json completed(const PartShapes& part, const json& shapes, const json& base, const char* widths,
               std::int64_t unit, const json& shared) {
  const json& found = shapes.at(widths);
  const bool same = base.is_object() && base.value(widths, json()) == found;
  const auto fits = [&](const json& width) { return width.get<std::int64_t>() % unit == 0; };
  if (!same && !(found.is_array() ? std::all_of(found.begin(), found.end(), fits) : fits(found)))
    part.fail(fmt::format("heads and groups are not in the file and follow from no rule for {} {}", widths,
                          found.dump()),
              "--base FOLDER with configs of the same widths");
  json config = same ? base : shared;
  config.update(shapes);
  return config;
}

json clip_shared(bool openclip, std::int64_t width) {
  return {{"hidden_act", openclip ? "gelu" : "quick_gelu"},
          {"num_attention_heads", width / 64},
          {"eos_token_id", 2}};
}

json unet_shared(const json& shapes, bool sdxl) {
  json shared{{"norm_num_groups", 32}, {"attention_head_dim", 8}, {"sample_size", 64}};
  if (!shapes.at("use_linear_projection").get<bool>()) return shared;
  shared["attention_head_dim"] = json::array();
  for (const json& width : shapes.at("block_out_channels"))
    shared["attention_head_dim"].push_back(width.get<std::int64_t>() / 64);
  shared["sample_size"] = sdxl ? 128 : 96;
  return shared;
}

Component& renewed(ModelFiles& files, const char* name, const char* class_name, TensorTable table) {
  Component& component = files.components[name];
  component.name = name;
  component.class_name = class_name;
  component.folder = files.path;
  component.table = std::move(table);
  return component;
}

void open_text(ModelFiles& files, TensorTable& file, const TextPart& part) {
  TensorTable table = take(file, part.prefix);
  const std::string prefix(part.prefix);
  const std::string blocks = prefix + "transformer.resblocks.";
  std::int64_t layers = PartShapes(table, blocks).count("", ".ln_1.weight");
  // Stable Diffusion 2 takes the state before OpenCLIP's last layer. A file without the projection was
  // written from diffusers' encoder, which has no such layer.
  if (part.openclip && std::string_view(part.pipeline) == kSd && holds(table, prefix + "text_projection")) {
    take(table, prefix + "text_projection");
    take(table, fmt::format("{}{}.", blocks, --layers));
  }
  Component& component = renewed(files, part.component, part.class_name, std::move(table));
  component.keys =
      ldm_key_map(component.table, prefix, part.openclip ? openclip_modules(layers) : clip_modules());
  const PartShapes shapes(component.table, component.keys);
  const json config = clip_config(shapes);
  component.config = completed(shapes, config, component.config, "hidden_size", 64,
                               clip_shared(part.openclip, config.at("hidden_size")));
}

void open_vae(ModelFiles& files, TensorTable& file, bool sdxl) {
  Component& component = renewed(files, "vae", "AutoencoderKL", take(file, kVaePrefix));
  for (auto& [name, tensor] : component.table.tensors)  // linears, as convolutions of single pixels
    if (name.find(".mid.attn_1.") != std::string::npos)
      while (tensor.shape.size() > 2 && tensor.shape.back() == 1) tensor.shape.pop_back();
  const std::string prefix(kVaePrefix);
  const PartShapes shapes(component.table, prefix);
  component.config = completed(
      shapes, ldm_vae_config(shapes), component.config, "block_out_channels", 32,
      {{"norm_num_groups", 32}, {"scaling_factor", sdxl ? 0.13025 : 0.18215}, {"force_upcast", sdxl}});
  component.keys = ldm_key_map(component.table, prefix,
                               ldm_vae_modules(read_vae_config(component.config, component.folder.string())));
}

/// Takes all that is left, so that what has no place is found where every network's is.
void open_unet(ModelFiles& files, TensorTable file, bool sdxl) {
  Component& component = renewed(files, "unet", "UNet2DConditionModel", std::move(file));
  const std::string prefix(kUnetPrefix);
  const PartShapes shapes(component.table, prefix);
  const auto text = files.components.find("text_encoder_2");
  const std::int64_t pooled =
      text == files.components.end() ? 0 : text->second.config.value("projection_dim", std::int64_t{0});
  const json config = ldm_unet_config(shapes, pooled, files.class_name == kRefiner ? 5 : 6);
  component.config =
      completed(shapes, config, component.config, "block_out_channels",
                config.at("use_linear_projection").get<bool>() ? 64 : 32, unet_shared(config, sdxl));
  component.keys =
      ldm_key_map(component.table, prefix,
                  ldm_unet_modules(read_unet_config(component.config, component.folder.string())));
}

/// The scheduler's config: the base's, else the published one; v prediction and a terminal SNR of zero by the
/// tensors that name them (ComfyUI). A Stable Diffusion 2 predicts v unless a base says otherwise.
void set_scheduler(ModelFiles& files, bool sdxl, bool velocity, bool zero_snr) {
  json& config = files.scheduler_config;
  const bool linear = files.components.at("unet").config.at("use_linear_projection");
  if (config.is_null())
    config = sdxl     ? scheduler_config("EulerDiscreteScheduler", "epsilon")
             : linear ? scheduler_config("DDIMScheduler", "v_prediction")
                      : scheduler_config("PNDMScheduler", "epsilon");
  if (velocity) config["prediction_type"] = "v_prediction";
  if (zero_snr) config.update({{"rescale_betas_zero_snr", true}, {"timestep_spacing", "trailing"}});
}

}  // namespace

bool is_ldm(const TensorTable& table) {
  return table.tensors.contains(std::string(kLdmMarker));
}

void open_ldm(ModelFiles& files) {
  TensorTable file = std::move(files.single_file).value();
  files.single_file.reset();
  for (const auto& [start, what] : kOtherFiles)
    if (holds(file, start))
      weights::fail_model(files.path, fmt::format("this is {}", what),
                          "a model that makes pictures from text");
  const std::string base = std::exchange(files.class_name, pipeline_of(files, file));
  const bool sdxl = files.class_name != kSd;
  if (files.class_name == kRefiner && base != kRefiner) leave_what_refiner_shares(files);
  const bool velocity = holds(file, "v_pred");
  const bool zero_snr = holds(file, "ztsnr");
  std::erase_if(file.tensors, [](const auto& entry) { return is_unused(entry.first); });
  for (const TextPart& part : kTextParts)
    if (files.class_name == part.pipeline && holds(file, part.prefix)) open_text(files, file, part);
  if (holds(file, kVaePrefix)) open_vae(files, file, sdxl);
  open_unet(files, std::move(file), sdxl);
  set_scheduler(files, sdxl, velocity, zero_snr);
  for (const auto& [name, component] : files.components)
    if (component.table.files.empty())
      weights::fail_model(files.path,
                          fmt::format("neither the file nor its base folder holds the weights of {}", name),
                          "--base FOLDER, a diffusers folder with them");
}

}  // namespace xdit::models
