#include "schedulers/flow_match.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace xdit::schedulers {
namespace {

// Switches of diffusers' class that change the schedule, none of which FLUX.1 uses.
constexpr std::array kUnsupported{"invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas",
                                  "use_beta_sigmas", "stochastic_sampling"};

}  // namespace

FlowMatchConfig read_flow_match_config(const nlohmann::json& config, const std::string& where) {
  FlowMatchConfig flow;
  try {
    flow.shift = config.value("shift", flow.shift);
    flow.dynamic_shift = config.value("use_dynamic_shifting", flow.dynamic_shift);
    flow.base_tokens = config.value("base_image_seq_len", flow.base_tokens);
    flow.max_tokens = config.value("max_image_seq_len", flow.max_tokens);
    flow.base_shift = config.value("base_shift", flow.base_shift);
    flow.max_shift = config.value("max_shift", flow.max_shift);
    flow.training_steps = config.value("num_train_timesteps", flow.training_steps);
    for (const char* key : kUnsupported)
      if (config.contains(key) && config.at(key) == true)
        throw Error(ExitCode::kModel, fmt::format("{}: expected false, found true", key), where);
    if (config.value("time_shift_type", "exponential") != "exponential")
      throw Error(ExitCode::kModel, "time_shift_type: expected exponential, found another", where);
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
                                      std::int64_t image_tokens, std::optional<double> shift) {
  XDIT_ASSERT(steps > 0);
  const double slope =
      (config.max_shift - config.base_shift) / static_cast<double>(config.max_tokens - config.base_tokens);
  const double mu = slope * static_cast<double>(image_tokens - config.base_tokens) + config.base_shift;
  const double factor = shift ? *shift : config.dynamic_shift ? std::exp(mu) : config.shift;

  FlowMatchSchedule schedule;
  const double lowest = 1 / static_cast<double>(steps);
  for (std::int64_t i = 0; i < steps; ++i) {
    const double fraction = steps == 1 ? 0 : static_cast<double>(i) / static_cast<double>(steps - 1);
    const auto sigma = static_cast<float>(1 + fraction * (lowest - 1));
    const auto f = static_cast<float>(factor);
    // Two forms of one function, as diffusers writes each: they round differently.
    const float shifted =
        config.dynamic_shift && !shift ? f / (f + (1 / sigma - 1)) : f * sigma / (1 + (f - 1) * sigma);
    schedule.sigmas.push_back(shifted);
    schedule.timesteps.push_back(shifted * static_cast<float>(config.training_steps));
  }
  schedule.sigmas.push_back(0);
  return schedule;
}

}  // namespace xdit::schedulers
