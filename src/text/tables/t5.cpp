#include "text/tables/t5.h"

#include <fmt/format.h>

#include "weights/config_reader.h"
#include "weights/parameter_list.h"

namespace xdit::text {

T5Config read_t5_config(const nlohmann::json& config, const std::string& where) {
  const weights::ConfigReader read(config, where);
  T5Config t5;
  t5.vocabulary = read.size("vocab_size", t5.vocabulary);
  t5.width = read.size("d_model", 512);
  t5.head_dim = read.size("d_kv", t5.head_dim);
  t5.heads = read.size("num_heads", 8);
  t5.mlp_width = read.size("d_ff", 2048);
  t5.layers = read.count("num_layers", 6);
  t5.buckets = read.size("relative_attention_num_buckets", t5.buckets);
  t5.max_distance = read.size("relative_attention_max_distance", t5.max_distance);
  t5.eps = read.number("layer_norm_epsilon", t5.eps);
  // "gated-gelu" means the tanh form, as in transformers' T5Config.
  const std::string projection = read.text("feed_forward_proj", "relu");
  t5.gated = projection.starts_with("gated-");
  t5.activation = t5.gated ? projection.substr(6) : projection;
  if (projection == "gated-gelu") t5.activation = "gelu_new";
  if (t5.buckets < 4 || t5.buckets % 4 != 0) read.refuse("relative_attention_num_buckets", "a multiple of 4");
  if (t5.max_distance <= t5.buckets / 4)
    read.refuse("relative_attention_max_distance", "more than a quarter of the buckets");
  return t5;
}

std::vector<weights::Parameter> t5_parameters(const T5Config& config) {
  weights::ParameterList list;
  const std::int64_t inner = config.heads * config.head_dim;
  list.tensor("shared.weight", {config.vocabulary, config.width});
  list.tensor("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
              {config.buckets, config.heads});
  for (std::int64_t i = 0; i < config.layers; ++i) {
    const std::string attention = fmt::format("encoder.block.{}.layer.0.", i);
    const std::string mlp = fmt::format("encoder.block.{}.layer.1.", i);
    const std::string self = attention + "SelfAttention.";
    const std::string dense = mlp + "DenseReluDense.";
    list.norm(attention + "layer_norm", config.width, false);
    list.stacked(self + "qkv", {{self + "q", inner}, {self + "k", inner}, {self + "v", inner}}, config.width,
                 false);
    list.linear(self + "o", inner, config.width, false);
    list.norm(mlp + "layer_norm", config.width, false);
    if (config.gated)
      list.stacked(dense + "wi", {{dense + "wi_0", config.mlp_width}, {dense + "wi_1", config.mlp_width}},
                   config.width, false);
    else
      list.linear(dense + "wi", config.width, config.mlp_width, false);
    list.linear(dense + "wo", config.mlp_width, config.width, false);
  }
  list.norm("encoder.final_layer_norm", config.width, false);
  return list.take();
}

}  // namespace xdit::text
