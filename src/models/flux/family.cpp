#include "models/flux/family.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/nearest.h"
#include "models/flux/bfl_keys.h"
#include "models/flux/tables.h"
#include "models/vae/tables.h"
#include "text/tables/clip.h"
#include "text/tables/t5.h"

namespace xdit::models {
namespace {

// What a component must be, and its config's place for errors.
const weights::Component& part(const Model& model, const std::string& name, const std::string& class_name) {
  const auto found = model.files.components.find(name);
  if (found == model.files.components.end())
    throw Error(ExitCode::kModel, fmt::format("no component {}", name), model.files.path.string(),
                "the whole folder as published, with model_index.json");
  const weights::Component& component = found->second;
  if (component.class_name != class_name)
    throw Error(ExitCode::kModel,
                fmt::format("{}: expected a {}, found '{}'", name, class_name, component.class_name),
                model.files.path.string());
  return component;
}

void require_equal(const Model& model, const std::string& what, std::int64_t a, std::int64_t b) {
  if (a != b)
    throw Error(ExitCode::kModel, fmt::format("{} do not fit each other: {} and {}", what, a, b),
                model.files.path.string());
}

std::string where(const weights::Component& component) {
  return (component.folder / "config.json").string();
}

}  // namespace

void describe_flux(Model& model) {
  if (model.files.single_file) {
    auto& components = model.files.components;
    if (!is_bfl(*model.files.single_file))
      throw Error(ExitCode::kModel, "a safetensors file whose layout is not known", model.files.path.string(),
                  "a diffusers folder, or a FLUX transformer in black-forest-labs' layout");
    const auto base = components.find("transformer");
    components["transformer"] =
        bfl_transformer(std::move(*model.files.single_file),
                        base == components.end() ? nlohmann::json() : base->second.config);
    model.files.single_file.reset();
  }
  const weights::Component& transformer = part(model, "transformer", "FluxTransformer2DModel");
  weights::Component& clip_part = model.files.components["text_encoder"];
  const FluxConfig flux = read_flux_config(transformer.config, where(transformer));
  const text::ClipConfig clip =
      text::read_clip_config(part(model, "text_encoder", "CLIPTextModel").config, where(clip_part));
  const weights::Component& t5_part = part(model, "text_encoder_2", "T5EncoderModel");
  const text::T5Config t5 = text::read_t5_config(t5_part.config, where(t5_part));
  const weights::Component& vae_part = part(model, "vae", "AutoencoderKL");
  const VaeConfig vae = read_vae_config(vae_part.config, where(vae_part));
  require_equal(model, "CLIP's width and the transformer's pooled_projection_dim", clip.width,
                flux.pooled_width);
  require_equal(model, "T5's width and the transformer's joint_attention_dim", t5.width, flux.text_width);
  require_equal(model, "four latent channels and the transformer's in_channels", 4 * vae.latent_channels,
                flux.in_channels);
  clip_part.keys = text::clip_keys(clip_part.table);

  model.networks = {
      {"text_encoder",
       text::clip_parameters(clip),
       {"text_model.embeddings.position_ids", "text_projection."},
       {}},
      {"text_encoder_2", text::t5_parameters(t5), {"encoder.embed_tokens.", "decoder.", "lm_head."}, {}},
      {"transformer", flux_parameters(flux), {}, {}},
      {"vae", vae_decoder_parameters(vae), {"encoder.", "quant_conv."}, {}},
  };
  model.shape = {.pixels_per_token = 2 * vae.downscale(),
                 .latent_channels = vae.latent_channels,
                 .latent_scale = vae.downscale(),
                 .token_channels = flux.in_channels,
                 .width = flux.width(),
                 .heads = flux.heads,
                 .blocks = flux.blocks()};
  model.takes_guidance = flux.guidance_embeds;
  if (!flux.guidance_embeds) model.defaults = {.steps = 4, .guidance = 0, .max_sequence_length = 256};
}

}  // namespace xdit::models
