#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "weights/key_map.h"
#include "weights/model_files.h"

namespace xdit::text {

/// transformers' CLIPTextConfig, as far as the encoder depends on it.
struct ClipConfig {
  std::int64_t vocabulary = 49408;
  std::int64_t width = 768;
  std::int64_t mlp_width = 3072;
  std::int64_t layers = 12;
  std::int64_t heads = 12;
  std::int64_t positions = 77;
  std::int64_t eos_token_id = 2;  ///< 2: pool at the largest id (what published configs mean by it)
  std::string activation = "quick_gelu";
  double eps = 1e-5;
  std::int64_t projection = 0;  ///< width of the pooled embedding's projection, 0: none
  bool transposed =
      false;  ///< it is OpenCLIP's "text_projection" [C, P], not "text_projection.weight" [P, C]
};
/// Error(kModel) at a config that neither a CLIPTextModel nor a CLIPTextModelWithProjection has.
[[nodiscard]] ClipConfig read_clip_config(const weights::Component& component);

/// Names as published: "text_model.encoder.layers.0.self_attn.out_proj.weight"; q, k and v as
/// "...self_attn.qkv".
[[nodiscard]] std::vector<weights::Parameter> clip_parameters(const ClipConfig& config);

/// Canonical names from a folder's: transformers 5 writes them without "text_model.".
[[nodiscard]] weights::KeyMap clip_keys(const weights::KeyMap& names);

}  // namespace xdit::text
