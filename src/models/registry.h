#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "weights/key_map.h"
#include "weights/model_files.h"

/// The explicit table of model families, as far as no tensor is needed: what a plan, an inspection or an
/// error wants.
namespace xdit::models {

enum class Role : std::uint8_t { kEncoder, kDenoiser, kDecoder };

/// A network of a pipeline: the parameters that it holds.
struct Network {
  Role role = Role::kDenoiser;
  std::string component;  ///< "transformer"
  std::vector<weights::Parameter> parameters;
  weights::Ignored ignored;             ///< names in its files that it has no use for
  std::vector<weights::Placed> placed;  ///< where each parameter's bytes are; empty when they are drawn
  bool not_in_float16 = false;          ///< overflows: in float32 when the run is in float16
  [[nodiscard]] DType dtype(DType run) const {
    return not_in_float16 && run == DType::kF16 ? DType::kF32 : run;
  }
};

/// What the denoiser takes from a text encoder of the pipeline.
struct TextEncoder {
  enum class Tokens : std::uint8_t { kNone, kLast, kPenultimate };
  std::string component;  ///< "text_encoder_2"
  std::string tokenizer;  ///< "tokenizer_2"
  std::string ids;        ///< what a trace calls its ids: "t5_ids"
  Tokens tokens = Tokens::kNone;
  bool pooled = false;
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
  /// A network of convolutions: ranks divide its tokens by whole rows of latents, and the prompt's tokens are
  /// not among those of the loop.
  bool by_rows = false;
};

/// What a model wants where the user says nothing; unset fields are the profile's own defaults.
struct Defaults {
  std::int64_t steps = 28;
  double guidance = 3.5;
  std::int64_t max_sequence_length = 512;
  std::optional<std::int64_t> height{}, width{};  ///< pixels
};

/// An opened model: files and what follows from their headers and configs.
struct Model {
  std::string family;  ///< "flux"
  weights::ModelFiles files;
  std::vector<Network> networks;  ///< in the order of use
  /// The states of those that give any stand side by side in a prompt's embedding.
  std::vector<TextEncoder> text_encoders;
  bool zero_empty_negative = false;  ///< no negative prompt is an embedding of zeros
  Shape shape;
  Defaults defaults;
  bool takes_guidance = false;   ///< has an embedding of the guidance scale
  bool guidance_is_cfg = false;  ///< the guidance scale is that of classifier-free guidance
  bool embeds_sizes = false;     ///< the picture's original size, crop and final size (Podell et al. 2023)
  /// SDXL's refiner: finishes the pictures of another model. In place of the final size, an aesthetic score.
  bool refines = false;
  bool dummy = false;  ///< weights are drawn, not read
};

/// Opens what `-m` names (weights::find_model), or a built-in name when `dummy`; checks that every network's
/// tensors are there and fit. Every fault is Error(kModel).
[[nodiscard]] Model open(const std::string& name, const std::filesystem::path& base,
                         const std::filesystem::path& tokenizers, bool dummy);

/// Opens what finishes the pictures of `model`. A refiner's file takes what it lacks from the diffusers
/// folder that it lies in, else from `base`, which may be SDXL's; one without a tokenizer takes the model's.
[[nodiscard]] Model open_refiner(const std::string& name, const Model& model,
                                 const std::filesystem::path& base, const std::filesystem::path& tokenizers);

/// For `list models`.
struct FamilyInfo {
  std::string name;                  ///< "flux"
  std::string pipeline;              ///< diffusers' class, "FluxPipeline"
  std::vector<std::string> builtin;  ///< names with built-in configs for --load-format dummy
};
[[nodiscard]] std::vector<FamilyInfo> families();

}  // namespace xdit::models
