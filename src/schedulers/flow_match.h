#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace xdit::schedulers {

/// diffusers' FlowMatchEulerDiscreteScheduler config.
struct FlowMatchConfig {
  double shift = 1.0;
  bool dynamic_shift = false;  ///< shift by the picture's size in place of `shift`
  std::int64_t base_tokens = 256;
  std::int64_t max_tokens = 4096;
  double base_shift = 0.5;
  double max_shift = 1.15;
  std::int64_t training_steps = 1000;
};
/// Error(kModel) at what this scheduler does not have. `where` names the file.
[[nodiscard]] FlowMatchConfig read_flow_match_config(const nlohmann::json& config, const std::string& where);

/// Noise levels of N steps and the model's times: sigmas [N + 1] end at 0; timesteps [N] = 1000 sigma.
struct FlowMatchSchedule {
  std::vector<float> sigmas;
  std::vector<float> timesteps;
};
/// As FluxPipeline sets them: N sigmas from 1 down to 1 / N, then shifted (Esser et al. 2024, eq. 23): by
/// `shift`, else by the config's fixed shift, else by exp(mu) with mu linear in `image_tokens`. In float32,
/// as diffusers rounds.
[[nodiscard]] FlowMatchSchedule flow_match_schedule(const FlowMatchConfig& config, std::int64_t steps,
                                                    std::int64_t image_tokens, std::optional<double> shift);

}  // namespace xdit::schedulers
