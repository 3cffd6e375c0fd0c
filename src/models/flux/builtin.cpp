#include "models/flux/builtin.h"

#include "models/parts.h"

namespace xdit::models {

using nlohmann::json;

std::vector<std::string> flux_builtin_names() {
  return {"FLUX.1-dev", "FLUX.1-schnell"};
}

bool flux_builtin(const std::string& name, weights::ModelFiles& files) {
  const std::string published = builtin_name(name, flux_builtin_names());
  if (published.empty()) return false;
  const bool dev = published == "FLUX.1-dev";
  set_builtin(files, published, "FluxPipeline");
  const json transformer{{"in_channels", 64},
                         {"num_layers", 19},
                         {"num_single_layers", 38},
                         {"num_attention_heads", 24},
                         {"attention_head_dim", 128},
                         {"joint_attention_dim", 4096},
                         {"pooled_projection_dim", 768},
                         {"guidance_embeds", dev},
                         {"axes_dims_rope", {16, 56, 56}}};
  const json clip{{"vocab_size", 49408},        {"hidden_size", 768},        {"intermediate_size", 3072},
                  {"num_hidden_layers", 12},    {"num_attention_heads", 12}, {"max_position_embeddings", 77},
                  {"hidden_act", "quick_gelu"}, {"eos_token_id", 2}};
  const json t5{{"vocab_size", 32128},
                {"d_model", 4096},
                {"d_kv", 64},
                {"num_heads", 64},
                {"d_ff", 10240},
                {"num_layers", 24},
                {"feed_forward_proj", "gated-gelu"}};
  const json vae{{"block_out_channels", {128, 256, 512, 512}},
                 {"layers_per_block", 2},
                 {"latent_channels", 16},
                 {"norm_num_groups", 32},
                 {"use_post_quant_conv", false},
                 {"scaling_factor", 0.3611},
                 {"shift_factor", 0.1159}};
  add_builtin_part(files, "transformer", "FluxTransformer2DModel", transformer);
  add_builtin_part(files, "text_encoder", "CLIPTextModel", clip);
  add_builtin_part(files, "text_encoder_2", "T5EncoderModel", t5);
  add_builtin_part(files, "vae", "AutoencoderKL", vae);
  files.scheduler_config = {{"_class_name", "FlowMatchEulerDiscreteScheduler"},
                            {"shift", dev ? 3.0 : 1.0},
                            {"use_dynamic_shifting", dev},
                            {"base_shift", 0.5},
                            {"max_shift", 1.15},
                            {"base_image_seq_len", 256},
                            {"max_image_seq_len", 4096},
                            {"num_train_timesteps", 1000}};
  return true;
}

}  // namespace xdit::models
