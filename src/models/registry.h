#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "weights/key_map.h"
#include "weights/model_files.h"

/// The explicit table of model families, as far as no tensor is needed: what a plan, an inspection or an
/// error wants.
namespace xdit::models {

/// A network of a pipeline: the parameters that it holds.
struct Network {
  std::string component;  ///< "transformer"
  std::vector<weights::Parameter> parameters;
  weights::Ignored ignored;             ///< names in its files that it has no use for
  std::vector<weights::Placed> placed;  ///< where each parameter's bytes are; empty when they are drawn
};

/// What the Plan cuts and predicts with.
struct Shape {
  std::int64_t pixels_per_token = 16;  ///< along a side; width and height are multiples of it
  std::int64_t latent_channels = 16;
  std::int64_t latent_scale = 8;     ///< pixels along a side of a latent pixel
  std::int64_t token_channels = 64;  ///< of a token of the loop's latents
  std::int64_t width = 0;            ///< of a token between blocks
  std::int64_t heads = 0;
  std::int64_t blocks = 0;  ///< of the denoiser
};

/// What a model wants where the user says nothing; unset fields are the profile's own defaults.
struct Defaults {
  std::int64_t steps = 28;
  double guidance = 3.5;
  std::int64_t max_sequence_length = 512;
};

/// An opened model: files and what follows from their headers and configs.
struct Model {
  std::string family;  ///< "flux"
  weights::ModelFiles files;
  std::vector<Network> networks;  ///< in the order of use
  Shape shape;
  Defaults defaults;
  bool takes_guidance = false;  ///< has an embedding of the guidance scale
  bool dummy = false;           ///< weights are drawn, not read
};

/// Opens what `-m` names (weights::find_model), or a built-in name when `dummy`; checks that every network's
/// tensors are there and fit. Every fault is Error(kModel).
[[nodiscard]] Model open(const std::string& name, const std::filesystem::path& base,
                         const std::filesystem::path& tokenizers, bool dummy);

/// For `list models`.
struct FamilyInfo {
  std::string name;                  ///< "flux"
  std::string pipeline;              ///< diffusers' class, "FluxPipeline"
  std::vector<std::string> builtin;  ///< names with built-in configs for --load-format dummy
};
[[nodiscard]] std::vector<FamilyInfo> families();

}  // namespace xdit::models
