#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "schedulers/noise_levels.h"

namespace xdit::schedulers {

/// diffusers' FlowMatchEulerDiscreteScheduler config.
struct FlowMatchConfig {
  double shift = 1.0;
  bool dynamic_shift = false;  ///< shift by the picture's size in place of `shift`
  bool linear_shift = false;   ///< by mu, not by exp(mu)
  std::int64_t base_tokens = 256;
  std::int64_t max_tokens = 4096;
  double base_shift = 0.5;
  double max_shift = 1.15;
  double terminal = 0;  ///< level of the last step, to which the others are stretched; 0: none
  std::int64_t training_steps = 1000;
  Sigmas sigmas = Sigmas::kDefault;
};
/// Error(kModel) at what this scheduler does not have. `where` names the file.
[[nodiscard]] FlowMatchConfig read_flow_match_config(const nlohmann::json& config, const std::string& where);

/// Noise levels of N steps and the model's times: sigmas [N + 1] end at 0; timesteps [N] = 1000 sigma.
using FlowMatchSchedule = NoiseLevels;
/// As FluxPipeline sets them: N sigmas from 1 down to 1 / N, then shifted (Esser et al. 2024, eq. 23): by
/// `shift`, else by the config's fixed shift, else by exp(mu) with mu linear in `image_tokens`; then spread
/// anew between the first and the last one. In float32, as diffusers rounds. `simple`: ComfyUI's levels, of a
/// table of 10,000.
[[nodiscard]] FlowMatchSchedule flow_match_schedule(const FlowMatchConfig& config, std::int64_t steps,
                                                    std::int64_t image_tokens, std::optional<double> shift,
                                                    bool simple = false);
/// As FlowMatchHeunDiscreteScheduler sets them: evenly from 1 to the least trained level, shifted by `shift`
/// or the config's fixed one. Of steps, not of evaluations.
[[nodiscard]] FlowMatchSchedule flow_match_heun_schedule(const FlowMatchConfig& config, std::int64_t steps,
                                                         std::optional<double> shift);

}  // namespace xdit::schedulers
