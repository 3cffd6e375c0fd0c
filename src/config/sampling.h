#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/extent.h"
#include "core/dtype.h"

namespace xdit::config {

/// How a prompt becomes a picture.
struct Sampling {
  std::string scheduler = "flow-match-euler";
  std::string sigmas = "default", timestep_spacing = "auto", prediction = "auto";
  std::int64_t steps = 28;
  double guidance = 3.5, cfg_scale = 1.0;
  std::optional<double> guidance_rescale{};  ///< 0..1 (Lin et al. 2023, section 3.4); unset: 0
  std::optional<double> shift;               ///< fixed time shift; unset: the model's
  std::vector<std::uint64_t> seeds{};        ///< at least one; a drawn seed (-1) is already a number here
  std::optional<DType> rng_dtype;            ///< unset: `model.dtype`, as diffusers draws
  std::int64_t max_sequence_length = 512;    ///< T5 tokens
  /// What SDXL is told; unset: the picture's own size, nothing cut off.
  std::optional<Extent> original_size{}, crop{}, target_size{};
  double refiner_start = 0.8;  ///< share of the noise levels that the model itself takes
  double aesthetic_score = 6, negative_aesthetic_score = 2.5;  ///< what SDXL's refiner is told
  friend bool operator==(const Sampling&, const Sampling&) = default;
};

/// What pictures of one launch may differ in besides prompt and seed.
struct Variant {
  Sampling sampling;
  std::optional<std::string> negative_prompt;
  friend bool operator==(const Variant&, const Variant&) = default;
};

}  // namespace xdit::config
