#include "models/flux/builtin.h"

#include <algorithm>
#include <cctype>

namespace xdit::models {
namespace {

using nlohmann::json;

weights::Component component(const std::string& name, const std::string& class_name, json config) {
  weights::Component made;
  made.name = name;
  made.class_name = class_name;
  made.folder = name;
  made.config = std::move(config);
  return made;
}

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

std::vector<std::string> flux_builtin_names() {
  return {"FLUX.1-dev", "FLUX.1-schnell"};
}

bool flux_builtin(const std::string& name, weights::ModelFiles& files) {
  const std::string bare =
      lower_case(name.substr(name.find('/') == std::string::npos ? 0 : name.find('/') + 1));
  const std::vector<std::string> names = flux_builtin_names();
  const auto found = std::find_if(names.begin(), names.end(),
                                  [&](const std::string& known) { return lower_case(known) == bare; });
  if (found == names.end()) return false;
  const bool dev = *found == "FLUX.1-dev";

  files.path = *found;
  files.name = *found;
  files.class_name = "FluxPipeline";
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
  files.components["transformer"] = component("transformer", "FluxTransformer2DModel", transformer);
  files.components["text_encoder"] = component("text_encoder", "CLIPTextModel", clip);
  files.components["text_encoder_2"] = component("text_encoder_2", "T5EncoderModel", t5);
  files.components["vae"] = component("vae", "AutoencoderKL", vae);
  files.scheduler_config = {{"shift", dev ? 3.0 : 1.0},   {"use_dynamic_shifting", dev},
                            {"base_shift", 0.5},          {"max_shift", 1.15},
                            {"base_image_seq_len", 256},  {"max_image_seq_len", 4096},
                            {"num_train_timesteps", 1000}};
  return true;
}

}  // namespace xdit::models
