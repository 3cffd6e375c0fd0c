#include "weights/model_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "weights/describe.h"

namespace xdit::weights {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 5> kNetworks{"transformer", "unet", "vae", "text_encoder",
                                                    "text_encoder_2"};

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

nlohmann::json read_object(const fs::path& path) {
  constexpr std::size_t kMaxBytes = std::size_t{16} << 20U;
  nlohmann::json json = read_json(path, ExitCode::kModel, kMaxBytes);
  if (!json.is_object()) fail_model(path, "expected a JSON object");
  return json;
}

/// The names in a folder that end so, sorted.
std::vector<std::string> names_in(const fs::path& folder, std::initializer_list<std::string_view> ends) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto at = fs::directory_iterator(folder, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    std::string name = at->path().filename().string();
    if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return name.ends_with(end); }))
      names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

void refuse_quantised(const fs::path& where, const TensorTable& table, const nlohmann::json& config) {
  const bool by_name = std::any_of(table.tensors.begin(), table.tensors.end(), [](const auto& entry) {
    return entry.first.find(".quant_state.bitsandbytes") != std::string::npos ||
           entry.first.ends_with(".absmax");
  });
  const auto at = config.find("quantization_config");
  const std::string method = by_name              ? "bitsandbytes"
                             : at == config.end() ? ""
                                                  : text_at(*at, "quant_method");
  if (by_name || (at != config.end() && !at->is_null()))
    fail_model(where,
               fmt::format("the weights are quantised{}, which xdit-gen does not read",
                           method.empty() ? "" : " by " + name_text(method)),
               "the model in bf16 or fp16; in Python: model.dequantize(); model.save_pretrained(FOLDER)");
}

/// A shard's name is a plain file name, so that an index cannot reach outside its folder.
void check_shard_name(const fs::path& index, const std::string& name) {
  const bool plain =
      !name.starts_with('.') && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
  if (!plain || !name.ends_with(".safetensors"))
    fail_model(index, fmt::format("expected the name of a .safetensors file in this folder, found {}",
                                  name_text(name)));
}

TensorTable read_shards(const fs::path& index) {
  const nlohmann::json json = read_object(index);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object())
    fail_model(index, "expected \"weight_map\", an object of tensor and file names");
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string())
      fail_model(index, fmt::format("tensor {}: expected a file's name", name_text(tensor)));
    check_shard_name(index, shard.get<std::string>());
    shards.insert(shard.get<std::string>());
  }
  std::vector<std::string> lacking;
  for (const std::string& shard : shards)
    if (!is_file(index.parent_path() / shard)) lacking.push_back(name_text(shard));
  if (!lacking.empty())
    fail_model(index,
               fmt::format("{} of its {} files are not there: {}", lacking.size(), shards.size(),
                           fmt::join(lacking, ", ")),
               "finish the download");
  TensorTable table;
  for (const std::string& shard : shards) merge(table, read_safetensors(index.parent_path() / shard));
  for (const auto& [tensor, shard] : map->items()) {
    const auto at = table.tensors.find(tensor);
    const bool agrees =
        at != table.tensors.end() && table.files.at(at->second.file).filename() == shard.get<std::string>();
    if (!agrees)
      fail_model(index, fmt::format("tensor {}: expected in {}, which does not hold it", name_text(tensor),
                                    name_text(shard.get<std::string>())));
  }
  return table;
}

/// The weights of a component's folder: full precision before variants, shards before one file. Empty if
/// there are none.
TensorTable read_weights(const fs::path& folder) {
  for (const std::string_view variant : {"", ".fp16", ".bf16"}) {
    for (const std::string_view stem : {"diffusion_pytorch_model", "model"}) {
      const fs::path index = folder / fmt::format("{}.safetensors.index{}.json", stem, variant);
      if (is_file(index)) return read_shards(index);
      const fs::path file = folder / fmt::format("{}{}.safetensors", stem, variant);
      if (is_file(file)) return read_safetensors(file);
    }
  }
  const std::vector<std::string> others = names_in(folder, {".safetensors"});
  const bool is_whole = others.size() == 1 && others.front().find("-of-") == std::string::npos;
  return is_whole ? read_safetensors(folder / others.front()) : TensorTable{};
}

[[noreturn]] void fail_without_weights(const fs::path& folder) {
  const std::vector<std::string> pickles = names_in(folder, {".bin", ".pt", ".pth", ".ckpt", ".pkl"});
  if (!pickles.empty())
    fail_model(folder / pickles.front(),
               "this is a pickle, which can run code: xdit-gen reads safetensors only",
               fmt::format("python -c \"from diffusers import DiffusionPipeline as P; "
                           "P.from_pretrained('{}', torch_dtype='auto').save_pretrained('converted')\"",
                           folder.parent_path().string()));
  const std::vector<std::string> ggufs = names_in(folder, {".gguf"});
  if (!ggufs.empty()) (void)read_safetensors(folder / ggufs.front());  // refuses it by name
  const std::vector<std::string> others = names_in(folder, {".safetensors"});
  if (others.empty()) fail_model(folder, "no .safetensors file", "finish the download");
  fail_model(
      folder,
      fmt::format(
          "expected model.safetensors, diffusion_pytorch_model.safetensors or the index of one, found {}",
          fmt::join(others, ", ")));
}

Component open_component(const fs::path& folder, const std::string& name, const std::string& class_name,
                         bool may_lack_weights) {
  Component component{name, class_name, folder, read_object(folder / "config.json"), {}, {}};
  refuse_quantised(folder / "config.json", {}, component.config);
  component.table = read_weights(folder);
  if (component.table.files.empty() && !may_lack_weights) fail_without_weights(folder);
  if (!component.table.files.empty())
    refuse_quantised(component.table.files.front(), component.table, nullptr);
  component.keys = identity_map(component.table);
  return component;
}

/// "FLUX.1-dev" from .../FLUX.1-dev/ or from .../models--owner--FLUX.1-dev/snapshots/COMMIT.
std::string name_of(const fs::path& path) {
  fs::path full = fs::absolute(path).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  const std::string cached = full.parent_path().parent_path().filename().string();
  if (full.parent_path().filename() == "snapshots" && cached.starts_with("models--"))
    return cached.substr(cached.rfind("--") + 2);
  return full.filename().string();
}

[[noreturn]] void fail_without_index(const fs::path& folder) {
  if (is_file(folder / "config.json"))
    fail_model(folder, "this folder holds one network of a model: model_index.json is missing",
               "-m " + fs::absolute(folder).lexically_normal().parent_path().string());
  const std::vector<std::string> files = names_in(folder, {".safetensors"});
  fail_model(folder, "not a diffusers folder: model_index.json is missing",
             files.empty() ? "" : "-m " + (folder / files.front()).string());
}

/// Which networks may have no weights in a folder: a single file beside it holds them.
enum class Lack : std::uint8_t { kNone, kDenoiser, kAll };

ModelFiles open_folder(const fs::path& folder, const fs::path& tokenizers, Lack lack) {
  const fs::path index_file = folder / "model_index.json";
  const nlohmann::json index = read_object(index_file);
  ModelFiles files;
  files.path = folder;
  files.name = name_of(folder);
  files.class_name = text_at(index, "_class_name");
  files.settings = index;
  if (files.class_name.empty()) fail_model(index_file, "expected \"_class_name\", the pipeline's");
  for (const auto& [name, entry] : index.items()) {
    const bool is_part =
        entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string();
    if (!is_part) continue;  // settings, and parts that are [null, null]
    if (name == "scheduler") files.scheduler_config = read_object(folder / name / "scheduler_config.json");
    if (name == "tokenizer" || name == "tokenizer_2") {
      const fs::path at = (tokenizers.empty() ? folder : tokenizers) / name;
      if (!is_folder(at))
        fail_model(at, "expected a folder with the tokenizer's files", "--tokenizers FOLDER");
      files.tokenizers[name] = at;
    }
    if (std::find(kNetworks.begin(), kNetworks.end(), name) == kNetworks.end()) continue;
    const bool may_lack_weights =
        lack == Lack::kAll || (lack == Lack::kDenoiser && (name == "transformer" || name == "unet"));
    if (!is_file(folder / name / "config.json") && may_lack_weights) continue;
    files.components[name] =
        open_component(folder / name, name, entry[1].get<std::string>(), may_lack_weights);
  }
  return files;
}

}  // namespace

ModelFiles open_model(const fs::path& path, const fs::path& base, const fs::path& tokenizers,
                      bool (*is_whole)(const TensorTable& table)) {
  if (is_folder(path)) {
    if (!is_file(path / "model_index.json")) fail_without_index(path);
    return open_folder(path, tokenizers, Lack::kNone);
  }
  TensorTable table = read_safetensors(path);
  refuse_quantised(path, table, nullptr);
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const fs::path folder = base.empty() ? parent : base;
  const bool whole = is_whole != nullptr && is_whole(table);
  const bool has_base = is_file(folder / "model_index.json");
  if (!has_base && whole && !base.empty()) fail_without_index(folder);
  if (!has_base && !whole)
    fail_model(
        folder,
        fmt::format(
            "{} holds one network; the others (VAE, text encoders, tokenizers) come from a diffusers folder, "
            "and this is none: model_index.json is missing",
            path.filename().string()),
        "--base FOLDER");
  ModelFiles files;
  if (has_base)
    files = open_folder(folder, tokenizers, whole ? Lack::kAll : Lack::kDenoiser);
  else if (!tokenizers.empty())
    for (const char* name : {"tokenizer", "tokenizer_2"})
      if (is_folder(tokenizers / name)) files.tokenizers[name] = tokenizers / name;
  files.path = path;
  files.name = path.stem().string();
  files.single_file = std::move(table);
  return files;
}

}  // namespace xdit::weights
