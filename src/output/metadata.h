#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_spec.h"
#include "config/settings.h"
#include "core/dtype.h"
#include "output/png.h"

namespace xdit::output {

/// What made a picture: what its bytes depend on, and nothing of the machine or the time. Texts are valid
/// UTF-8.
struct PictureRecord {
  std::string version;     ///< of the xdit-gen that made it
  std::string model;       ///< its name: never a path
  std::string model_hash;  ///< first 10 hex digits
  config::LoadFormat load_format = config::LoadFormat::kAuto;
  config::Quantize quantize = config::Quantize::kNone;
  std::string prompt;
  std::optional<std::string> negative_prompt{};  ///< unset: none, which some models tell from ""
  std::int64_t width = 0;                        ///< pixels
  std::int64_t height = 0;                       ///< pixels
  std::int64_t steps = 0;
  std::string scheduler;
  std::string sigmas;
  double guidance = 0;
  double cfg_scale = 1;
  std::optional<double> guidance_rescale{};       ///< unset: none
  std::optional<double> shift;                    ///< unset: the model's
  std::optional<std::string> timestep_spacing{};  ///< likewise
  std::optional<std::string> original_size{}, crop{},
      target_size{};                        ///< "1024x768"; unset: the picture's own
  std::optional<std::string> prediction{};  ///< unset: the model's
  std::optional<std::string> refiner{};     ///< its name; unset: none, nor what follows
  std::optional<double> refiner_start{}, aesthetic_score{}, negative_aesthetic_score{};
  std::int64_t max_sequence_length = 0;  ///< T5 tokens
  std::uint64_t seed = 0;                ///< of this picture
  DType rng_dtype = DType::kF32;
  DType dtype = DType::kF32;
  config::Allow mode = config::Allow::kExact;
  std::map<std::string, std::string> grid;  ///< "pipefusion" -> "2"; only of modes that are not exact

  bool operator==(const PictureRecord&) const = default;
};

/// The record of one picture of a run. `mode` and `grid` are the Plan's: the caller sets them.
[[nodiscard]] PictureRecord record_of(const config::RunSpec& spec, const config::Picture& picture,
                                      const std::string& model, std::string_view model_hash);

/// AUTOMATIC1111's "infotext" of the picture, for other programs.
[[nodiscard]] std::string a1111_parameters(const PictureRecord& record);

/// The record as one line of ASCII JSON and back; the way back is strict and throws `code` at `where`.
[[nodiscard]] std::string to_json(const PictureRecord& record);
[[nodiscard]] PictureRecord from_json(std::string_view json, const std::string& where, ExitCode code);

/// The chunks `parameters` and `xdit-gen` for encode_png.
[[nodiscard]] std::vector<TextChunk> text_chunks(const PictureRecord& record);

/// The record in a PNG of ours; throws Error(kUsage) when there is none.
[[nodiscard]] PictureRecord read_record(const std::filesystem::path& png);

/// Settings that make the picture again (`--from-image`), each with where = `where`. The model's folder is
/// not among them, since no path is recorded: the user names it, and the caller compares model_hash.
[[nodiscard]] config::Layer replay_layer(const PictureRecord& record, const std::string& where);

}  // namespace xdit::output
