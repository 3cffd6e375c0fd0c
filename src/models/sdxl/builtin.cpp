#include "models/sdxl/builtin.h"

#include "models/parts.h"

namespace xdit::models {
namespace {

using nlohmann::json;

json clip_g() {
  json clip = builtin_clip(1280, 5120, 32, 20, "gelu");
  clip["projection_dim"] = 1280;
  return clip;
}

json sdxl_vae() {
  json vae = builtin_vae(4, 0.13025);
  vae["force_upcast"] = true;
  return vae;
}

json sd_unet(const json& heads, std::int64_t text_width, bool linear_projection, std::int64_t side) {
  const char* down = "CrossAttnDownBlock2D";
  const char* up = "CrossAttnUpBlock2D";
  return {{"block_out_channels", {320, 640, 1280, 1280}},
          {"attention_head_dim", heads},
          {"cross_attention_dim", text_width},
          {"layers_per_block", 2},
          {"use_linear_projection", linear_projection},
          {"down_block_types", {down, down, down, "DownBlock2D"}},
          {"up_block_types", {"UpBlock2D", up, up, up}},
          {"sample_size", side}};
}

json refiner_unet() {
  return {
      {"block_out_channels", {384, 768, 1536, 1536}},
      {"attention_head_dim", {6, 12, 24, 24}},
      {"transformer_layers_per_block", 4},
      {"cross_attention_dim", 1280},
      {"layers_per_block", 2},
      {"use_linear_projection", true},
      {"addition_embed_type", "text_time"},
      {"addition_time_embed_dim", 256},
      {"projection_class_embeddings_input_dim", 2560},
      {"down_block_types", {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"}},
      {"up_block_types", {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}},
      {"sample_size", 128}};
}

json sdxl_unet() {
  return {{"block_out_channels", {320, 640, 1280}},
          {"attention_head_dim", {5, 10, 20}},
          {"transformer_layers_per_block", {1, 2, 10}},
          {"cross_attention_dim", 2048},
          {"layers_per_block", 2},
          {"use_linear_projection", true},
          {"addition_embed_type", "text_time"},
          {"addition_time_embed_dim", 256},
          {"projection_class_embeddings_input_dim", 2816},
          {"down_block_types", {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"}},
          {"up_block_types", {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}},
          {"sample_size", 128}};
}

}  // namespace

std::vector<std::string> sdxl_builtin_names() {
  return {"stable-diffusion-xl-base-1.0", "sdxl"};
}

bool sdxl_builtin(const std::string& name, weights::ModelFiles& files) {
  const std::string published = builtin_name(name, sdxl_builtin_names());
  if (published.empty()) return false;
  set_builtin(files, published, "StableDiffusionXLPipeline");
  add_builtin_part(files, "text_encoder", "CLIPTextModel", builtin_clip_l());
  add_builtin_part(files, "text_encoder_2", "CLIPTextModelWithProjection", clip_g());
  add_builtin_part(files, "unet", "UNet2DConditionModel", sdxl_unet());
  add_builtin_part(files, "vae", "AutoencoderKL", sdxl_vae());
  files.scheduler_config = scheduler_config("EulerDiscreteScheduler", "epsilon");
  return true;
}

std::vector<std::string> refiner_builtin_names() {
  return {"stable-diffusion-xl-refiner-1.0", "sdxl-refiner"};
}

bool refiner_builtin(const std::string& name, weights::ModelFiles& files) {
  const std::string published = builtin_name(name, refiner_builtin_names());
  if (published.empty()) return false;
  set_builtin(files, published, "StableDiffusionXLImg2ImgPipeline");
  add_builtin_part(files, "text_encoder_2", "CLIPTextModelWithProjection", clip_g());
  add_builtin_part(files, "unet", "UNet2DConditionModel", refiner_unet());
  add_builtin_part(files, "vae", "AutoencoderKL", sdxl_vae());
  files.scheduler_config = scheduler_config("EulerDiscreteScheduler", "epsilon");
  files.settings = refiner_settings();
  return true;
}

json refiner_settings() {
  return {{"requires_aesthetics_score", true}, {"force_zeros_for_empty_prompt", false}};
}

std::vector<std::string> sd_builtin_names() {
  return {"stable-diffusion-v1-5", "stable-diffusion-2-1", "sd15", "sd21"};
}

bool sd_builtin(const std::string& name, weights::ModelFiles& files) {
  const std::string published = builtin_name(name, sd_builtin_names());
  if (published.empty()) return false;
  const bool first = published == "stable-diffusion-v1-5" || published == "sd15";
  set_builtin(files, published, "StableDiffusionPipeline");
  add_builtin_part(files, "text_encoder", "CLIPTextModel",
                   first ? builtin_clip_l() : builtin_clip(1024, 4096, 23, 16, "gelu"));
  add_builtin_part(files, "unet", "UNet2DConditionModel",
                   first ? sd_unet(8, 768, false, 64) : sd_unet({5, 10, 20, 20}, 1024, true, 96));
  add_builtin_part(files, "vae", "AutoencoderKL", builtin_vae(4, 0.18215));
  files.scheduler_config = first ? scheduler_config("PNDMScheduler", "epsilon")
                                 : scheduler_config("DDIMScheduler", "v_prediction");
  return true;
}

json scheduler_config(const char* class_name, const char* prediction) {
  return {{"_class_name", class_name},
          {"beta_start", 0.00085},
          {"beta_end", 0.012},
          {"beta_schedule", "scaled_linear"},
          {"num_train_timesteps", 1000},
          {"prediction_type", prediction},
          {"clip_sample", false},
          {"set_alpha_to_one", false},
          {"skip_prk_steps", true},
          {"steps_offset", 1},
          {"timestep_spacing", "leading"}};
}

}  // namespace xdit::models
