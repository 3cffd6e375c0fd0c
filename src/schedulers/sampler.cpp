#include "schedulers/sampler.h"

#include <ATen/ATen.h>

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/nearest.h"
#include "schedulers/flow_match.h"

namespace xdit::schedulers {
namespace {

// dx = v dsigma, by Euler's method (Lipman et al. 2023; diffusers FlowMatchEulerDiscreteScheduler).
class FlowMatchEuler final : public Sampler {
 public:
  explicit FlowMatchEuler(FlowMatchSchedule schedule) : schedule_(std::move(schedule)) {}

  std::span<const float> timesteps() const override { return schedule_.timesteps; }

  at::Tensor step(std::int64_t step, const at::Tensor& latents, const at::Tensor& output,
                  History& /*history*/) const override {
    const auto i = static_cast<std::size_t>(step);
    const float change = schedule_.sigmas.at(i + 1) - schedule_.sigmas.at(i);
    return (latents.to(at::kFloat) + output.to(at::kFloat) * change).to(output.scalar_type());
  }

 private:
  FlowMatchSchedule schedule_;
};

std::unique_ptr<Sampler> make_flow_match_euler(const SamplerOptions& options, const nlohmann::json& config) {
  const FlowMatchConfig flow = read_flow_match_config(config, "scheduler/scheduler_config.json");
  return std::make_unique<FlowMatchEuler>(
      flow_match_schedule(flow, options.steps, options.image_tokens, options.shift));
}

using Make = std::unique_ptr<Sampler>(const SamplerOptions&, const nlohmann::json&);
constexpr std::array<std::pair<std::string_view, Make*>, 1> kSamplers{{
    {"flow-match-euler", make_flow_match_euler},
}};

}  // namespace

std::unique_ptr<Sampler> make_sampler(const SamplerOptions& options, const nlohmann::json& config) {
  std::vector<std::string> names;
  for (const auto& [name, make] : kSamplers) {
    if (name == options.name) return make(options, config);
    names.emplace_back(name);
  }
  throw Error(ExitCode::kUsage, fmt::format("no scheduler '{}'", options.name), "--scheduler",
              suggest(options.name, names));
}

}  // namespace xdit::schedulers
