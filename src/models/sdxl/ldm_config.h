#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "weights/key_map.h"

/// The config.json of diffusers' and transformers' classes, as far as shapes say it.
namespace xdit::models {

/// Shapes of the tensors of a part of a file.
class PartShapes {
 public:
  /// Those whose names begin with `prefix`, by what follows it.
  PartShapes(const weights::TensorTable& table, const std::string& prefix);
  /// By diffusers' names.
  PartShapes(const weights::TensorTable& table, const weights::KeyMap& keys);

  [[nodiscard]] bool has(const std::string& name) const { return shapes_.contains(name); }
  /// Error(kModel) if it is not there.
  [[nodiscard]] const std::vector<std::int64_t>& at(const std::string& name) const;
  /// Its size in a dimension; likewise.
  [[nodiscard]] std::int64_t size(const std::string& name, std::size_t dimension) const;
  /// That of any tensor whose name ends so, or nullptr.
  [[nodiscard]] const std::vector<std::int64_t>* any(std::string_view end) const;
  /// How many of `before`0`after`, `before`1`after`, ... there are.
  [[nodiscard]] std::int64_t count(const std::string& before, const std::string& after) const;
  [[noreturn]] void fail(const std::string& message, const std::string& fix = {}) const;

 private:
  std::map<std::string, std::vector<std::int64_t>> shapes_;
  std::string prefix_;
  std::filesystem::path file_;
};

/// Of a UNet2DConditionModel in latent diffusion's layout. `pooled_width`: of the embedding that stands
/// beside the embedded `size_ids`, where it takes any.
[[nodiscard]] nlohmann::json ldm_unet_config(const PartShapes& unet, std::int64_t pooled_width,
                                             std::int64_t size_ids);
/// Of an AutoencoderKL's decoder in latent diffusion's layout.
[[nodiscard]] nlohmann::json ldm_vae_config(const PartShapes& vae);
/// Of a CLIPTextModel, by diffusers' names.
[[nodiscard]] nlohmann::json clip_config(const PartShapes& clip);

}  // namespace xdit::models
