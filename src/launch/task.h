#pragma once
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "config/run_spec.h"
#include "models/registry.h"
#include "parallel/plan.h"

namespace xdit::launch {

/// The models of a run: one, or one that begins pictures and one that finishes them.
struct Models {
  Models(const models::Model& begins, const models::Model* finishes = nullptr)
      : model(begins), refiner(finishes) {}
  const models::Model& model;
  const models::Model* refiner;
};

/// A run as it is sent to ranks, who plan it as the launcher does.
struct Task {
  config::RunSpec spec{};
  parallel::Machine machine{};
  std::map<std::int64_t, std::filesystem::path> paths{};     ///< by the index of the picture
  std::map<std::int64_t, std::filesystem::path> previews{};  ///< likewise; none unless asked for
  std::string model_hash{};
  std::string weights{};  ///< weights_text's: ranks open the model again when it is another's
  bool last = true;       ///< the ranks end with it
  double started_s = 0;   ///< as RankJob's
  mode_t umask = 0;       ///< of the files that are written
};

[[nodiscard]] nlohmann::json json_of(const Task& task);
[[nodiscard]] Task task_of(const nlohmann::json& message);

/// What the bytes of loaded weights follow from, plan aside: files and what they become.
[[nodiscard]] std::string weights_text(const config::RunSpec& spec, const Models& models,
                                       const std::string& model_hash);

/// Where previews of these pictures go, which may share a file; none unless they are asked for. Error(kUsage)
/// for latents without a projection (output/preview.h).
[[nodiscard]] std::map<std::int64_t, std::filesystem::path> preview_paths(
    const config::RunSpec& spec, const models::Model& model,
    const std::map<std::int64_t, std::filesystem::path>& paths);

/// This process's.
[[nodiscard]] mode_t current_umask();

}  // namespace xdit::launch
