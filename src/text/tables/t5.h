#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "weights/key_map.h"

namespace xdit::text {

/// transformers' T5Config, as far as the encoder depends on it.
struct T5Config {
  std::int64_t vocabulary = 32128;
  std::int64_t width = 4096;
  std::int64_t head_dim = 64;
  std::int64_t heads = 64;
  std::int64_t mlp_width = 10240;
  std::int64_t layers = 24;
  std::int64_t buckets = 32;        ///< of relative positions
  std::int64_t max_distance = 128;  ///< tokens, from which on all positions share a bucket
  bool gated = true;
  std::string activation = "gelu_new";
  double eps = 1e-6;
};
/// Error(kModel) at a config that no T5EncoderModel has. `where` names the file.
[[nodiscard]] T5Config read_t5_config(const nlohmann::json& config, const std::string& where);

/// Names as published: "encoder.block.0.layer.0.SelfAttention.o.weight"; q, k and v as
/// "...SelfAttention.qkv", wi_0 and wi_1 as "...DenseReluDense.wi".
[[nodiscard]] std::vector<weights::Parameter> t5_parameters(const T5Config& config);

}  // namespace xdit::text
