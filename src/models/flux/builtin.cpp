#include "models/flux/builtin.h"

#include <utility>

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
  const json t5{{"vocab_size", 32128},
                {"d_model", 4096},
                {"d_kv", 64},
                {"num_heads", 64},
                {"d_ff", 10240},
                {"num_layers", 24},
                {"feed_forward_proj", "gated-gelu"}};
  json vae = builtin_vae(16, 0.3611);
  vae.update({{"use_post_quant_conv", false}, {"shift_factor", 0.1159}});
  add_builtin_part(files, "transformer", "FluxTransformer2DModel", transformer);
  add_builtin_part(files, "text_encoder", "CLIPTextModel", builtin_clip_l());
  add_builtin_part(files, "text_encoder_2", "T5EncoderModel", t5);
  add_builtin_part(files, "vae", "AutoencoderKL", std::move(vae));
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
