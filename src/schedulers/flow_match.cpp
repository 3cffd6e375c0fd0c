#include "schedulers/flow_match.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace xdit::schedulers {
namespace {

// Switches of diffusers' class that change the schedule or the steps, none of which FLUX.1 uses.
constexpr std::array kUnsupportedSwitches{"invert_sigmas", "stochastic_sampling"};
constexpr double kSimpleLevels = 10'000;  // ComfyUI's table of a flow model

// In numpy's order: float32 for FluxPipeline's levels, double for those of the class itself.
template <class T>
T shifted(T sigma, double shift) {
  const T s = static_cast<T>(shift);
  return s * sigma / (1 + (static_cast<T>(shift - 1)) * sigma);
}

void end_schedule(FlowMatchSchedule& schedule, const FlowMatchConfig& config) {
  for (const float sigma : schedule.sigmas)
    schedule.timesteps.push_back(sigma * static_cast<float>(config.training_steps));
  schedule.sigmas.push_back(0);
}

void read_integer(const nlohmann::json& config, const char* key, std::int64_t& to) {
  if (config.contains(key)) to = integer_of(config.at(key));
}

}  // namespace

FlowMatchConfig read_flow_match_config(const nlohmann::json& config, const std::string& where) {
  FlowMatchConfig flow;
  try {
    flow.shift = config.value("shift", flow.shift);
    flow.dynamic_shift = config.value("use_dynamic_shifting", flow.dynamic_shift);
    read_integer(config, "base_image_seq_len", flow.base_tokens);
    read_integer(config, "max_image_seq_len", flow.max_tokens);
    flow.base_shift = config.value("base_shift", flow.base_shift);
    flow.max_shift = config.value("max_shift", flow.max_shift);
    read_integer(config, "num_train_timesteps", flow.training_steps);
    for (const char* key : kUnsupportedSwitches)
      if (is_on(config, key))
        throw Error(ExitCode::kModel, fmt::format("{}: expected false, found true", key), where);
    flow.sigmas = read_sigmas(config);
    if (config.contains("shift_terminal") && !config.at("shift_terminal").is_null())
      config.at("shift_terminal").get_to(flow.terminal);
    const std::string type = config.value("time_shift_type", "exponential");
    flow.linear_shift = type == "linear";
    if (!flow.linear_shift && type != "exponential")
      throw Error(ExitCode::kModel, "time_shift_type: expected exponential or linear, found another", where);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ExitCode::kModel, error.what(), where);
  }
  const bool sound = flow.shift > 0 && flow.max_tokens > flow.base_tokens && flow.training_steps > 0;
  if (!sound)
    throw Error(ExitCode::kModel,
                "expected shift > 0, max_image_seq_len > base_image_seq_len, num_train_timesteps > 0", where);
  return flow;
}

FlowMatchSchedule flow_match_schedule(const FlowMatchConfig& config, std::int64_t steps,
                                      std::int64_t image_tokens, std::optional<double> shift, bool simple) {
  XDIT_ASSERT(steps > 0);
  const double slope =
      (config.max_shift - config.base_shift) / static_cast<double>(config.max_tokens - config.base_tokens);
  const double mu = slope * static_cast<double>(image_tokens - config.base_tokens) + config.base_shift;
  const bool dynamic = config.dynamic_shift && !shift;
  const auto factor = static_cast<float>(config.linear_shift ? mu : std::exp(mu));

  FlowMatchSchedule schedule;
  std::vector<double> even = linspace(1, 1 / static_cast<double>(steps), steps);
  for (std::int64_t i = 0; simple && i < steps; ++i)
    even[static_cast<std::size_t>(i)] =
        (kSimpleLevels - std::floor(static_cast<double>(i) * (kSimpleLevels / static_cast<double>(steps)))) /
        kSimpleLevels;
  for (const double level : even) {
    const auto sigma = static_cast<float>(level);
    // Two forms of one function, as diffusers writes each: they round differently.
    schedule.sigmas.push_back(dynamic ? factor / (factor + (1 / sigma - 1))
                                      : shifted(sigma, shift.value_or(config.shift)));
  }
  if (config.terminal != 0) {
    const float scale = (1 - schedule.sigmas.back()) / static_cast<float>(1 - config.terminal);
    for (float& sigma : schedule.sigmas) sigma = 1 - (1 - sigma) / scale;
  }
  if (config.sigmas != Sigmas::kDefault) {
    const std::vector<double> spread =
        spread_sigmas(config.sigmas, schedule.sigmas.front(), schedule.sigmas.back(), steps);
    schedule.sigmas.assign(spread.begin(), spread.end());
  }
  end_schedule(schedule, config);
  return schedule;
}

FlowMatchSchedule flow_match_heun_schedule(const FlowMatchConfig& config, std::int64_t steps,
                                           std::optional<double> shift) {
  const auto training = static_cast<double>(config.training_steps);
  const double by = shift.value_or(config.shift);
  const float least = shifted(1 / static_cast<float>(training), by);
  FlowMatchSchedule schedule;
  for (const double timestep : linspace(training, static_cast<double>(least) * training, steps))
    schedule.sigmas.push_back(static_cast<float>(shifted(timestep / training, by)));
  end_schedule(schedule, config);
  return schedule;
}

}  // namespace xdit::schedulers
