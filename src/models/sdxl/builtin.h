#pragma once
#include "weights/model_files.h"

namespace xdit::models {

/// The published configs of SDXL base and refiner and of Stable Diffusion 1.5 and 2.1, for --load-format
/// dummy.
[[nodiscard]] std::vector<std::string> sdxl_builtin_names();
[[nodiscard]] bool sdxl_builtin(const std::string& name, weights::ModelFiles& files);
[[nodiscard]] std::vector<std::string> refiner_builtin_names();
[[nodiscard]] bool refiner_builtin(const std::string& name, weights::ModelFiles& files);
[[nodiscard]] std::vector<std::string> sd_builtin_names();
[[nodiscard]] bool sd_builtin(const std::string& name, weights::ModelFiles& files);

/// What model_index.json says of SDXL's refiner.
[[nodiscard]] nlohmann::json refiner_settings();
/// The published scheduler_config.json of that class, with the prediction that a model was trained for.
[[nodiscard]] nlohmann::json scheduler_config(const char* class_name, const char* prediction);

}  // namespace xdit::models
