#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/picture.h"
#include "config/sampling.h"
#include "core/dtype.h"

namespace xdit::config {

enum class LoadFormat : std::uint8_t { kAuto, kDummy };
enum class Quantize : std::uint8_t { kNone, kFp8 };
enum class Allow : std::uint8_t { kExact, kRounding, kApproximate };
enum class Patch : std::uint8_t { kExact, kDisplaced };
enum class Device : std::uint8_t { kCuda, kCpu };
enum class Transport : std::uint8_t { kAuto, kPeer, kHost };

/// What a run is, after every source of settings has been merged and checked. Immutable and printable
/// (`generate --dry-run`). Nothing here depends on the machine.
struct RunSpec {
  struct Model {
    std::string path;  ///< diffusers folder, .safetensors file, or built-in name with dummy weights
    std::string base;  ///< folder with the components that a single file lacks; empty: the file's own folder
    std::string tokenizers;  ///< folder with tokenizer/ and tokenizer_2/; empty: the model's own
    std::string refiner;     ///< as path: what finishes SDXL's pictures; empty: the model itself
    DType dtype = DType::kBF16;
    LoadFormat load_format = LoadFormat::kAuto;
    Quantize quantize = Quantize::kNone;  ///< the linears of the denoiser's blocks
    friend bool operator==(const Model&, const Model&) = default;
  };
  struct Image {
    std::int64_t width = 1024, height = 1024;  ///< pixels
    std::int64_t count = 1;                    ///< pictures a prompt and seed; picture i takes seed + i
    friend bool operator==(const Image&, const Image&) = default;
  };
  using Sampling = config::Sampling;
  struct Parallel {
    std::string gpus = "1";                      ///< "all", a count, or a list: numbers with a comma, UUIDs
    using Degree = std::optional<std::int64_t>;  ///< unset ("auto"): the Plan chooses
    Degree data{}, cfg{}, pipefusion{}, ulysses{}, ring{}, gather{}, tensor{};
    Degree vae{};                        ///< row slabs of the decoder
    std::int64_t pipefusion_warmup = 1;  ///< steps of whole pictures before bands follow each other
    Patch patch = Patch::kExact;         ///< how a UNet's rows reach other ranks: in time, or a step late
    std::int64_t patch_warmup = 4;       ///< exact steps before rows are late (Li et al. 2024)
    std::string shard_weights = "auto";
    Allow allow = Allow::kExact;
    friend bool operator==(const Parallel&, const Parallel&) = default;
  };
  struct Output {
    std::string path = "out/{seed}.png";  ///< template
    bool metadata = true, overwrite = false;
    std::string report, trace, preview_path;  ///< files, or empty; the last is a template
    std::int64_t preview = 0;                 ///< evaluations from one to the next; 0: none
    friend bool operator==(const Output&, const Output&) = default;
  };
  struct Runtime {
    Device device = Device::kCuda;
    Transport transport = Transport::kAuto;  ///< what ranks exchange through
    double timeout_s = 60;
    bool deterministic = true, cuda_graphs = true;  ///< graphs where a plan can
    std::string warm_up = "auto";                   ///< a forward behind the loading
    friend bool operator==(const Runtime&, const Runtime&) = default;
  };
  Model model;
  std::vector<std::string> prompts;
  std::optional<std::string> negative_prompt;  ///< unset: none, which some models tell from ""
  Image image;
  Sampling sampling;
  Parallel parallel;
  Output output;
  Runtime runtime;
  std::vector<Picture> listed{};    ///< a batch names its pictures; else they follow from the above
  std::vector<Variant> variants{};  ///< and what they differ in; none: nothing
  std::string date{};               ///< {date} of the paths
  friend bool operator==(const RunSpec&, const RunSpec&) = default;
};

[[nodiscard]] std::vector<Picture> pictures(const RunSpec& spec);

/// The run of each variant, which lists no pictures; at least one.
[[nodiscard]] std::vector<RunSpec> variants_of(const RunSpec& spec);

/// The profile that would give this run again, as YAML: every key, in the documented order.
[[nodiscard]] std::string to_yaml(const RunSpec& spec);

}  // namespace xdit::config
