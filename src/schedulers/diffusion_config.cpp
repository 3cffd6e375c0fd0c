#include "schedulers/diffusion_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/json.h"

namespace xdit::schedulers {
namespace {

// Settings that change the latents and that no sampler here has, with the value that leaves them alone and
// the samplers whose classes know them. Thresholding needs the statistics of a whole picture.
struct Unsupported {
  const char* key;
  const char* value;
  std::string_view samplers;
};
constexpr std::array kUnsupported{
    Unsupported{"thresholding", "false", "ddim ddpm lcm dpm++-2m dpm++-2m-sde unipc"},
    Unsupported{"use_flow_sigmas", "false", "dpm++-2m dpm++-2m-sde unipc"},
    Unsupported{"use_lu_lambdas", "false", "dpm++-2m dpm++-2m-sde"},
    Unsupported{"interpolation_type", "\"linear\"", "euler"},
    Unsupported{"timestep_type", "\"discrete\"", "euler"},
    Unsupported{"sigma_min", "null", "euler"},
    Unsupported{"sigma_max", "null", "euler"},
    Unsupported{"predict_x0", "true", "unipc"},
    Unsupported{"solver_p", "null", "unipc"},
    Unsupported{"disable_corrector", "[]", "unipc"},
    Unsupported{"lambda_min_clipped", "null", "dpm++-2m dpm++-2m-sde"},
};

bool is_among(std::string_view name, std::string_view names) {
  const std::string listed = fmt::format(" {} ", names);
  return listed.find(fmt::format(" {} ", name)) != std::string::npos;
}

template <class T, std::size_t N>
using Names = std::array<std::pair<const char*, T>, N>;
constexpr Names<Prediction, 4> kPredictions{{{"epsilon", Prediction::kEpsilon},
                                             {"v_prediction", Prediction::kVelocity},
                                             {"sample", Prediction::kSample},
                                             {"original_sample", Prediction::kSample}}};
constexpr Names<Spacing, 3> kSpacings{
    {{"linspace", Spacing::kLinspace}, {"leading", Spacing::kLeading}, {"trailing", Spacing::kTrailing}}};
constexpr Names<bool, 2> kFinalSigmas{{{"zero", false}, {"sigma_min", true}}};
constexpr Names<bool, 2> kVariances{{{"fixed_small", false}, {"fixed_large", true}}};

class DiffusionReader {
 public:
  DiffusionReader(const nlohmann::json& config, const std::string& where) : config_(config), where_(where) {}

  // A null is an absent setting.
  template <class T>
  void read(const char* key, T& to) const {
    if (!has(key)) return;
    if constexpr (std::is_same_v<T, std::int64_t>)
      to = integer_of(config_.at(key));
    else
      to = config_.at(key).get<T>();
  }
  template <class T, std::size_t N>
  void read(const char* key, const Names<T, N>& names, T& to) const {
    if (!has(key)) return;
    std::vector<std::string> known;
    for (const auto& [name, value] : names) {
      known.emplace_back(name);
      if (config_.at(key) == name) {
        to = value;
        return;
      }
    }
    refuse(key, fmt::format("{}", fmt::join(known, " or ")));
  }
  void refuse_unsupported(std::string_view sampler) const {
    for (const auto& [key, value, samplers] : kUnsupported)
      if (is_among(sampler, samplers) && has(key) && config_.at(key) != nlohmann::json::parse(value))
        refuse(key, value);
  }
  [[nodiscard]] bool has(const char* key) const {
    return config_.contains(key) && !config_.at(key).is_null();
  }
  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const {
    throw Error(ExitCode::kModel,
                fmt::format("{}: expected {}, found {}", key, expected, config_.at(key).dump()), where_);
  }

 private:
  const nlohmann::json& config_;
  const std::string& where_;
};

}  // namespace

bool is_on(const nlohmann::json& config, const char* key) {
  const auto found = config.find(key);
  return found != config.end() && !found->is_null() && found->get<bool>();
}

Sigmas read_sigmas(const nlohmann::json& config) {
  if (is_on(config, "use_karras_sigmas")) return Sigmas::kKarras;
  if (is_on(config, "use_exponential_sigmas")) return Sigmas::kExponential;
  return is_on(config, "use_beta_sigmas") ? Sigmas::kBeta : Sigmas::kDefault;
}

DiffusionConfig read_diffusion_config(const nlohmann::json& config, const std::string& where,
                                      std::string_view sampler) {
  const DiffusionReader reader(config, where);
  DiffusionConfig read;
  try {
    reader.refuse_unsupported(sampler);
    reader.read("num_train_timesteps", read.training_steps);
    reader.read("beta_start", read.beta_start);
    reader.read("beta_end", read.beta_end);
    reader.read("beta_schedule", read.beta_schedule);
    reader.read("trained_betas", read.trained_betas);
    reader.read("rescale_betas_zero_snr", read.zero_terminal_snr);
    reader.read("prediction_type", kPredictions, read.prediction);
    if (reader.has("timestep_spacing")) reader.read("timestep_spacing", kSpacings, read.spacing.emplace());
    read.sigmas = read_sigmas(config);
    reader.read("steps_offset", read.steps_offset);
    reader.read("final_sigmas_type", kFinalSigmas, read.final_sigma_min);
    if (is_on(config, "clip_sample")) reader.read("clip_sample_range", read.clip.emplace(1.0F));
    reader.read("set_alpha_to_one", read.final_alpha_one);
    reader.read("skip_prk_steps", read.skip_runge_kutta);
    reader.read("solver_order", read.solver_order);
    reader.read("solver_type", read.solver_type);
    reader.read("lower_order_final", read.lower_order_final);
    reader.read("euler_at_final", read.euler_at_final);
    if (sampler == "ddpm") reader.read("variance_type", kVariances, read.large_variance);
    reader.read("original_inference_steps", read.original_steps);
    reader.read("timestep_scaling", read.timestep_scaling);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ExitCode::kModel, error.what(), where);
  }
  if (!read.trained_betas.empty()) read.training_steps = static_cast<std::int64_t>(read.trained_betas.size());
  if (read.training_steps < 2 || read.solver_order < 1 || read.solver_order > 3 || read.original_steps < 1)
    throw Error(ExitCode::kModel,
                "expected num_train_timesteps > 1, solver_order 1..3, original_inference_steps > 0", where);
  return read;
}

}  // namespace xdit::schedulers
