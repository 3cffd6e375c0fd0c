#include "models/flux/family.h"

#include <fmt/format.h>

#include "core/error.h"
#include "models/flux/bfl_keys.h"
#include "models/flux/tables.h"
#include "models/parts.h"
#include "text/tables/t5.h"

namespace xdit::models {

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
  const weights::Component& transformer = part(model, "transformer", {"FluxTransformer2DModel"});
  const FluxConfig flux = read_flux_config(transformer.config, config_place(transformer));
  weights::Component& clip_part = part(model, "text_encoder", {"CLIPTextModel"});
  const text::ClipConfig clip = text::read_clip_config(clip_part);
  const weights::Component& t5_part = part(model, "text_encoder_2", {"T5EncoderModel"});
  const text::T5Config t5 = text::read_t5_config(t5_part.config, config_place(t5_part));
  weights::Component& vae_part = part(model, "vae", {"AutoencoderKL"});
  drop_settings(vae_part, {"latents_mean", "latents_std"});
  const VaeConfig vae = read_vae_config(vae_part.config, config_place(vae_part));
  require_equal(model, "CLIP's width and the transformer's pooled_projection_dim", clip.width,
                flux.pooled_width);
  require_equal(model, "T5's width and the transformer's joint_attention_dim", t5.width, flux.text_width);
  require_equal(model, "four latent channels and the transformer's in_channels", 4 * vae.latent_channels,
                flux.in_channels);

  model.networks = {
      clip_network(clip_part, clip),
      {Role::kEncoder,
       "text_encoder_2",
       text::t5_parameters(t5),
       {"encoder.embed_tokens.", "decoder.", "lm_head."},
       {}},
      {Role::kDenoiser, "transformer", flux_parameters(flux), {}, {}},
      vae_network(vae_part, vae),
  };
  using Tokens = TextEncoder::Tokens;
  model.text_encoders = {{"text_encoder", "tokenizer", "clip_ids", Tokens::kNone, true},
                         {"text_encoder_2", "tokenizer_2", "t5_ids", Tokens::kLast, false}};
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
