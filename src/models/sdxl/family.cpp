#include "models/sdxl/family.h"

#include <cstdio>

#include "core/error.h"
#include "core/json.h"
#include "models/parts.h"
#include "models/sdxl/tables.h"
#include "weights/config_reader.h"

namespace xdit::models {
namespace {

using nlohmann::json;
using Tokens = TextEncoder::Tokens;

// The side of a picture, in latent pixels, that the UNet was trained for.
std::int64_t trained_side(const weights::Component& unet, std::size_t axis, std::int64_t otherwise) {
  const auto found = unet.config.find("sample_size");
  if (found == unet.config.end()) return otherwise;
  const json& side = found->is_array() && found->size() == 2 ? (*found)[axis] : *found;
  return side.is_number_integer() && side > 0 && side < 4096 ? side.get<std::int64_t>() : otherwise;
}

// A UNet, its text encoders, described by `encoders`, and its VAE.
UnetConfig describe(Model& model, std::vector<TextEncoder> encoders, std::int64_t side) {
  if (model.files.single_file)
    throw Error(ExitCode::kModel, "a safetensors file whose layout is not known", model.files.path.string(),
                "a diffusers folder, or one file in latent diffusion's layout, as the models are published");
  const weights::Component& unet_part = part(model, "unet", {"UNet2DConditionModel"});
  UnetConfig unet = read_unet_config(unet_part.config, config_place(unet_part));
  weights::Component& vae_part = part(model, "vae", {"AutoencoderKL"});
  const VaeConfig vae = read_vae_config(vae_part.config, config_place(vae_part));
  require_equal(model, "the VAE's latent_channels and the UNet's in_channels", vae.latent_channels,
                unet.in_channels);

  model.networks.clear();
  std::int64_t text_width = 0;
  for (const TextEncoder& encoder : encoders) {
    weights::Component& component =
        encoder.pooled ? part(model, encoder.component, {"CLIPTextModelWithProjection"})
                       : part(model, encoder.component, {"CLIPTextModel", "CLIPTextModelWithProjection"});
    const text::ClipConfig clip = text::read_clip_config(component);
    text_width += clip.width;
    model.networks.push_back(clip_network(component, clip));
  }
  require_equal(model, "the text encoders' width and the UNet's cross_attention_dim", text_width,
                unet.text_width);
  model.text_encoders = std::move(encoders);
  model.networks.push_back({Role::kDenoiser, "unet", unet_parameters(unet), {}, {}});
  model.networks.push_back(vae_network(vae_part, vae));
  std::int64_t width = 0;  // of all levels: what the way down leaves for the way up
  for (const UnetLevel& level : unet.levels) width += level.channels;
  model.shape = {.pixels_per_token = vae.downscale(),
                 .latent_channels = vae.latent_channels,
                 .latent_scale = vae.downscale(),
                 .token_channels = vae.latent_channels,
                 .width = width,
                 .heads = unet.levels.front().heads,
                 .blocks = unet.blocks(),
                 .by_rows = true};
  model.guidance_is_cfg = true;
  model.defaults = {.steps = 50,
                    .guidance = 7.5,
                    .height = trained_side(unet_part, 0, side) * vae.downscale(),
                    .width = trained_side(unet_part, 1, side) * vae.downscale()};
  return unet;
}

// Width of the pooled embedding that a UNet takes beside the embedded ids.
void check_added(const Model& model, const UnetConfig& unet, std::int64_t ids) {
  const auto& component = model.files.components.at(model.text_encoders.back().component);
  require_equal(model, "the pooled embedding with its size ids and the UNet's",
                text::read_clip_config(component).projection + ids * unet.size_channels, unet.added_width);
}

// SDXL and its refiner, which embed so many ids of the picture.
void describe_xl(Model& model, std::vector<TextEncoder> encoders, std::int64_t ids) {
  const UnetConfig unet = describe(model, std::move(encoders), 128);
  check_added(model, unet, ids);
  drop_settings(model.files.components.at("vae"), {"shift_factor"});
  model.embeds_sizes = true;
  model.defaults.guidance = 5;
  const weights::ConfigReader settings(model.files.settings, "model_index.json");
  model.zero_empty_negative = settings.boolean("force_zeros_for_empty_prompt", true);
  const weights::Component& vae = model.files.components.at("vae");
  model.networks.back().not_in_float16 =
      weights::ConfigReader(vae.config, config_place(vae)).boolean("force_upcast", true);
}

// diffusers' StableDiffusionPipeline changes these settings of every scheduler.
void correct_scheduler(Model& model) {
  json& scheduler = model.files.scheduler_config;
  if (scheduler.is_object() && scheduler.contains("steps_offset")) scheduler["steps_offset"] = 1;
  if (scheduler.is_object() && scheduler.contains("clip_sample")) scheduler["clip_sample"] = false;
}

// And this of UNets that versions below 0.9 saved, with 32 for 64.
void correct_sample_size(Model& model) {
  const auto unet = model.files.components.find("unet");
  if (unet == model.files.components.end() || !unet->second.config.is_object()) return;
  json& config = unet->second.config;
  const auto side = config.find("sample_size");
  int major = 0, minor = 0;
  if (side == config.end() || !side->is_number_integer() || *side >= 64 ||
      std::sscanf(text_at(config, "_diffusers_version").c_str(), "%d.%d", &major, &minor) < 1)
    return;
  if (major == 0 && minor < 9) *side = 64;
}

}  // namespace

void describe_sdxl(Model& model) {
  describe_xl(model,
              {{"text_encoder", "tokenizer", "clip_ids", Tokens::kPenultimate, false},
               {"text_encoder_2", "tokenizer_2", "clip2_ids", Tokens::kPenultimate, true}},
              6);
}

void describe_refiner(Model& model) {
  if (!weights::ConfigReader(model.files.settings, "model_index.json")
           .boolean("requires_aesthetics_score", false))
    throw Error(ExitCode::kModel,
                "a StableDiffusionXLImg2ImgPipeline that is no refiner: it takes no aesthetic scores",
                model.files.path.string(), "a model that makes pictures from text");
  describe_xl(model, {{"text_encoder_2", "tokenizer_2", "clip2_ids", Tokens::kPenultimate, true}}, 5);
  model.refines = true;
}

void describe_sd(Model& model) {
  correct_scheduler(model);
  correct_sample_size(model);
  const UnetConfig unet =
      describe(model, {{"text_encoder", "tokenizer", "clip_ids", Tokens::kLast, false}}, 64);
  drop_settings(model.files.components.at("vae"), {"shift_factor", "latents_mean", "latents_std"});
  require_equal(model, "a prompt without a pooled embedding and the UNet's", 0, unet.added_width);
}

}  // namespace xdit::models
