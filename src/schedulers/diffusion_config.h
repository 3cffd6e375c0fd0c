#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace xdit::schedulers {

/// What a model predicts: the noise (Ho et al. 2020), v (Salimans & Ho 2022), or the picture.
enum class Prediction : std::uint8_t { kEpsilon, kVelocity, kSample };
/// How timesteps are spread (Lin et al. 2023, table 2); simple: ComfyUI's.
enum class Spacing : std::uint8_t { kLinspace, kLeading, kTrailing, kSimple };
/// How noise levels are spread: by the timesteps, Karras et al. 2022 (eq. 5), evenly in log sigma, by
/// quantiles of a beta distribution (Lee et al. 2024).
enum class Sigmas : std::uint8_t { kDefault, kKarras, kExponential, kBeta };

/// Whether a scheduler_config.json has the switch on; nlohmann::json::exception where that is no boolean.
[[nodiscard]] bool is_on(const nlohmann::json& config, const char* key);
/// What use_karras_sigmas and the like say; likewise.
[[nodiscard]] Sigmas read_sigmas(const nlohmann::json& config);

/// A scheduler_config.json of a model that was trained to remove noise; the keys are diffusers'. What it does
/// not name takes latent diffusion's values.
struct DiffusionConfig {
  std::int64_t training_steps = 1000;
  double beta_start = 0.00085;
  double beta_end = 0.012;
  std::string beta_schedule = "scaled_linear";
  std::vector<float> trained_betas;  ///< replace the schedule
  bool zero_terminal_snr = false;
  Prediction prediction = Prediction::kEpsilon;
  std::optional<Spacing> spacing;  ///< unset: the sampler's own
  Sigmas sigmas = Sigmas::kDefault;
  std::int64_t steps_offset = 1;
  bool final_sigma_min = false;  ///< the last level is the least trained one, not zero
  std::optional<float> clip;     ///< bound of the predicted picture
  bool final_alpha_one = false;  ///< set_alpha_to_one
  bool skip_runge_kutta = true;  ///< skip_prk_steps
  std::int64_t solver_order = 2;
  std::string solver_type;  ///< "midpoint", "heun", "bh1", "bh2"; empty: the sampler's own
  bool lower_order_final = true;
  bool euler_at_final = false;
  bool large_variance = false;       ///< variance_type fixed_large
  std::int64_t original_steps = 50;  ///< of latent consistency's training
  double timestep_scaling = 10;
};

/// Error(kModel) at what no sampler here has. `where` names the file.
[[nodiscard]] DiffusionConfig read_diffusion_config(const nlohmann::json& config, const std::string& where,
                                                    std::string_view sampler);

}  // namespace xdit::schedulers
