#pragma once
#include <cstdint>
#include <vector>

#include "schedulers/diffusion_config.h"

namespace xdit::schedulers {

/// The noise that a model was trained with, in float32 as diffusers keeps it: latents of training step t are
/// sqrt(alphas[t]) picture + sqrt(1 - alphas[t]) noise (Ho et al. 2020, eq. 4).
struct TrainedNoise {
  std::vector<float> alphas;  ///< cumulative products
  std::vector<float> sigmas;  ///< noise over signal
  std::vector<float> log_sigmas;
  /// The timestep, with its fraction, whose noise level is `sigma`: linear in the logarithm.
  [[nodiscard]] double timestep_of(double sigma) const;
};
/// `finite`: the last sigma of a zero terminal SNR (Lin et al. 2023, algorithm 1) is kept finite, as solvers
/// in sigma want it.
[[nodiscard]] TrainedNoise trained_noise(const DiffusionConfig& config, bool finite);

/// Timesteps of `steps` steps, descending; those of linspace are not rounded. `points`: how many the spacings
/// other than trailing divide the training steps by: steps, or steps + 1 where the last is left out.
[[nodiscard]] std::vector<double> spaced_timesteps(const DiffusionConfig& config, Spacing spacing,
                                                   std::int64_t steps, std::int64_t points);

/// Levels and the model's times: sigmas [N + 1] with the level that the last step ends at, timesteps [N].
struct NoiseLevels {
  std::vector<float> sigmas;
  std::vector<float> timesteps;
};
/// Where diffusers' solvers differ.
enum class LevelStyle : std::uint8_t {
  kSigmas,     ///< k-diffusion's: fractional timesteps; spacings between the first and the last level
  kDpmSolver,  ///< whole timesteps; spacings between the trained extremes
  kUniPc,      ///< the same, but for the rounding of Karras' timesteps
};
[[nodiscard]] NoiseLevels noise_levels(const DiffusionConfig& config, const TrainedNoise& trained,
                                       std::int64_t steps, LevelStyle style);

/// Sigmas [steps] from `highest` to `lowest`.
[[nodiscard]] std::vector<double> spread_sigmas(Sigmas sigmas, double highest, double lowest,
                                                std::int64_t steps);

/// numpy's linspace.
[[nodiscard]] std::vector<double> linspace(double first, double last, std::int64_t count);

}  // namespace xdit::schedulers
