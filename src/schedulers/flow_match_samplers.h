#pragma once
#include "schedulers/flow_match.h"
#include "schedulers/sampler.h"

namespace xdit::schedulers {

/// dx = v dsigma (Lipman et al. 2023): diffusers' FlowMatchEulerDiscreteScheduler.
[[nodiscard]] std::unique_ptr<Sampler> make_flow_match_euler(FlowMatchSchedule schedule);
/// By Heun's method, two evaluations a step: FlowMatchHeunDiscreteScheduler.
[[nodiscard]] std::unique_ptr<Sampler> make_flow_match_heun(const FlowMatchSchedule& schedule);

}  // namespace xdit::schedulers
