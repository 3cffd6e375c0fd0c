#include "schedulers/noise_levels.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "schedulers/beta_quantile.h"

namespace xdit::schedulers {
namespace {

// torch.linspace in float32: from both ends to the middle, multiplied and added in one rounding.
std::vector<float> linspace32(double first, double last, std::int64_t count) {
  const auto start = static_cast<float>(first);
  const auto end = static_cast<float>(last);
  const float step = (end - start) / static_cast<float>(count - 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    values[static_cast<std::size_t>(i)] = i < count / 2
                                              ? std::fma(step, static_cast<float>(i), start)
                                              : std::fma(-step, static_cast<float>(count - i - 1), end);
  return values;
}

std::vector<float> cosine_betas(std::int64_t count) {  // Nichol & Dhariwal 2021, eq. 17
  const auto alpha = [&](std::int64_t i) {
    const double t = static_cast<double>(i) / static_cast<double>(count);
    return std::pow(std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2), 2);
  };
  std::vector<float> betas(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    betas[static_cast<std::size_t>(i)] = static_cast<float>(std::min(1 - alpha(i + 1) / alpha(i), 0.999));
  return betas;
}

std::vector<float> betas_of(const DiffusionConfig& config) {
  if (!config.trained_betas.empty()) return config.trained_betas;
  const std::int64_t count = config.training_steps;
  if (config.beta_schedule == "linear") return linspace32(config.beta_start, config.beta_end, count);
  if (config.beta_schedule == "squaredcos_cap_v2") return cosine_betas(count);
  if (config.beta_schedule != "scaled_linear")
    throw Error(ExitCode::kModel, "beta_schedule: expected linear, scaled_linear or squaredcos_cap_v2",
                "scheduler/scheduler_config.json");
  std::vector<float> betas = linspace32(std::sqrt(config.beta_start), std::sqrt(config.beta_end), count);
  for (float& beta : betas) beta *= beta;
  return betas;
}

// Products in double, kept in float32, as torch.cumprod.
std::vector<float> cumulative_alphas(const std::vector<float>& betas) {
  std::vector<float> alphas;
  alphas.reserve(betas.size());
  double product = 1;
  for (const float beta : betas) {
    product *= static_cast<double>(1 - beta);
    alphas.push_back(static_cast<float>(product));
  }
  return alphas;
}

// The betas with which the last cumulative product is zero and the first stays.
std::vector<float> without_terminal_signal(const std::vector<float>& betas) {
  std::vector<float> roots = cumulative_alphas(betas);
  for (float& root : roots) root = std::sqrt(root);
  const float first = roots.front();
  const float last = roots.back();
  const float scale = first / (first - last);
  std::vector<float> rescaled(betas.size());
  float before = 1;
  for (std::size_t i = 0; i < roots.size(); ++i) {
    const float root = (roots[i] - last) * scale;
    rescaled[i] = 1 - root * root / before;
    before = root * root;
  }
  return rescaled;
}

// numpy.interp over the indices of a table.
double interpolate(const std::vector<float>& table, double at) {
  const double last = static_cast<double>(table.size() - 1);
  const double place = std::clamp(at, 0.0, last);
  const auto low = static_cast<std::size_t>(std::min(std::floor(place), last - 1));
  const double slope = static_cast<double>(table[low + 1]) - static_cast<double>(table[low]);
  return slope * (place - static_cast<double>(low)) + static_cast<double>(table[low]);
}

float last_sigma(const DiffusionConfig& config, const TrainedNoise& trained) {
  return config.final_sigma_min ? trained.sigmas.front() : 0;
}

}  // namespace

double TrainedNoise::timestep_of(double sigma) const {
  const double log_sigma = std::log(std::max(sigma, 1e-10));
  const auto above = std::upper_bound(log_sigmas.begin(), log_sigmas.end(), log_sigma);
  const auto low = std::clamp<std::int64_t>(above - log_sigmas.begin() - 1, 0,
                                            static_cast<std::int64_t>(log_sigmas.size()) - 2);
  const double below = log_sigmas[static_cast<std::size_t>(low)];
  const double next = log_sigmas[static_cast<std::size_t>(low) + 1];
  const double weight = std::clamp((below - log_sigma) / (below - next), 0.0, 1.0);
  return (1 - weight) * static_cast<double>(low) + weight * static_cast<double>(low + 1);
}

TrainedNoise trained_noise(const DiffusionConfig& config, bool finite) {
  std::vector<float> betas = betas_of(config);
  if (config.zero_terminal_snr) betas = without_terminal_signal(betas);
  TrainedNoise trained;
  trained.alphas = cumulative_alphas(betas);
  for (const float alpha : trained.alphas) trained.sigmas.push_back(std::sqrt((1 - alpha) / alpha));
  if (config.zero_terminal_snr && finite) trained.sigmas.back() = 4096;  // diffusers' bound
  for (const float sigma : trained.sigmas) trained.log_sigmas.push_back(std::log(sigma));
  return trained;
}

std::vector<double> linspace(double first, double last, std::int64_t count) {
  std::vector<double> values(static_cast<std::size_t>(count), first);
  const double step = count > 1 ? (last - first) / static_cast<double>(count - 1) : 0;
  for (std::int64_t i = 1; i < count; ++i)
    values[static_cast<std::size_t>(i)] = static_cast<double>(i) * step + first;
  if (count > 1) values.back() = last;
  return values;
}

std::vector<double> spaced_timesteps(const DiffusionConfig& config, Spacing spacing, std::int64_t steps,
                                     std::int64_t points) {
  const auto training = static_cast<double>(config.training_steps);
  const double ratio = training / static_cast<double>(steps);
  std::vector<double> timesteps;
  timesteps.reserve(static_cast<std::size_t>(steps));
  const std::vector<double> even = linspace(0, training - 1, points);
  for (std::int64_t i = 0; i < steps; ++i) {
    const auto from_end = static_cast<double>(points - 1 - i);
    switch (spacing) {
      case Spacing::kLinspace:
        timesteps.push_back(even[static_cast<std::size_t>(points - 1 - i)]);
        break;
      case Spacing::kLeading:
        timesteps.push_back(from_end * static_cast<double>(config.training_steps / points) +
                            static_cast<double>(config.steps_offset));
        break;
      case Spacing::kTrailing:  // numpy.arange's rounding of the step
        timesteps.push_back(
            std::nearbyint(training + static_cast<double>(i) * ((training - ratio) - training)) - 1);
        break;
      case Spacing::kSimple:
        timesteps.push_back(training - 1 - std::floor(static_cast<double>(i) * ratio));
        break;
    }
  }
  return timesteps;
}

std::vector<double> spread_sigmas(Sigmas sigmas, double highest, double lowest, std::int64_t steps) {
  constexpr double kRho = 7;      // Karras et al. 2022
  constexpr double kShape = 0.6;  // Lee et al. 2024
  std::vector<double> spread = linspace(0, 1, steps);
  if (sigmas == Sigmas::kExponential) spread = linspace(std::log(highest), std::log(lowest), steps);
  for (double& value : spread) {
    if (sigmas == Sigmas::kKarras) {
      const double first = std::pow(highest, 1 / kRho);
      value = std::pow(first + value * (std::pow(lowest, 1 / kRho) - first), kRho);
    } else if (sigmas == Sigmas::kExponential) {
      value = std::exp(value);
    } else {
      value = lowest + beta_quantile(1 - value, kShape, kShape) * (highest - lowest);
    }
  }
  return spread;
}

NoiseLevels noise_levels(const DiffusionConfig& config, const TrainedNoise& trained, std::int64_t steps,
                         LevelStyle style) {
  const bool multistep = style != LevelStyle::kSigmas;
  std::vector<double> timesteps = spaced_timesteps(config, config.spacing.value_or(Spacing::kLinspace), steps,
                                                   multistep ? steps + 1 : steps);
  std::vector<double> sigmas;
  for (double& timestep : timesteps) {
    timestep = multistep ? std::nearbyint(timestep) : static_cast<double>(static_cast<float>(timestep));
    sigmas.push_back(interpolate(trained.sigmas, timestep));
  }
  if (config.sigmas != Sigmas::kDefault) {
    sigmas = multistep ? spread_sigmas(config.sigmas, trained.sigmas.back(), trained.sigmas.front(), steps)
                       : spread_sigmas(config.sigmas, sigmas.front(), sigmas.back(), steps);
    for (std::size_t i = 0; i < sigmas.size(); ++i) {
      timesteps[i] = trained.timestep_of(sigmas[i]);
      // diffusers rounds those of Karras' levels and cuts the others.
      const bool rounds = config.sigmas == Sigmas::kKarras &&
                          (style == LevelStyle::kUniPc || config.beta_schedule != "squaredcos_cap_v2");
      if (multistep) timesteps[i] = rounds ? std::nearbyint(timesteps[i]) : std::floor(timesteps[i]);
    }
  }
  NoiseLevels levels{.sigmas = {sigmas.begin(), sigmas.end()},
                     .timesteps = {timesteps.begin(), timesteps.end()}};
  levels.sigmas.push_back(last_sigma(config, trained));
  return levels;
}

}  // namespace xdit::schedulers
