#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "weights/key_map.h"
#include "weights/safetensors.h"

namespace xdit::weights {

/// One network of a model: its config and the tensors of its files.
struct Component {
  std::string name;              ///< "transformer", "unet", "vae", "text_encoder", "text_encoder_2"
  std::string class_name;        ///< of model_index.json: "FluxTransformer2DModel"
  std::filesystem::path folder;  ///< for errors
  nlohmann::json config;         ///< config.json
  TensorTable table;             ///< under the names in the files
  KeyMap keys;                   ///< canonical names -> `table`
};

/// What a user names with -m, opened: headers and configs only.
struct ModelFiles {
  std::filesystem::path path;
  std::string name;        ///< for people and metadata: "FLUX.1-dev"
  std::string class_name;  ///< of model_index.json: "FluxPipeline"
  std::map<std::string, Component> components;
  std::map<std::string, std::filesystem::path> tokenizers;  ///< "tokenizer", "tokenizer_2": folders
  nlohmann::json scheduler_config;
  nlohmann::json settings = nlohmann::json::object();  ///< model_index.json
  /// The tensors of a single file. Whoever knows its layout (models/) makes it a component, in place of the
  /// base folder's, before anything else looks at `components`.
  std::optional<TensorTable> single_file;
};

/// Where a user's -m points: an existing folder or file, else `owner/name` in the local Hugging Face cache
/// (HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface; refs/main, else the only snapshot). Never the network.
/// Error(kModel) says what to download and lists what is there.
[[nodiscard]] std::filesystem::path find_model(const std::string& name);

/// Opens a diffusers folder (model_index.json), or a single safetensors file with the other components from
/// the diffusers folder `base` (empty: the file's own folder), whose transformer or unet may then lack
/// weights. Pickles, GGUF and quantised weights are refused by name with how to convert. A shard's name in an
/// index is a plain file name. Full precision is preferred over the fp16 and bf16 variants. `tokenizers`: a
/// folder with tokenizer/ (and tokenizer_2/) to use in place of the model's. A single file that `is_whole`
/// holds all networks: it needs no base, whose networks may lack weights. Every fault is Error(kModel).
[[nodiscard]] ModelFiles open_model(const std::filesystem::path& path, const std::filesystem::path& base = {},
                                    const std::filesystem::path& tokenizers = {},
                                    bool (*is_whole)(const TensorTable& table) = nullptr);

/// Model hash of formats.md: SHA-256 over configs, tensor tables and a fixed small sample of every tensor's
/// bytes; 64 hex digits (metadata shows the first 10). Independent of paths and of how the files are sharded.
[[nodiscard]] std::string model_hash(const ModelFiles& files);

/// SHA-256 of a whole file, 64 hex digits (what model sites publish).
[[nodiscard]] std::string file_sha256(const std::filesystem::path& file);

}  // namespace xdit::weights
