#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "schedulers/flow_match_samplers.h"
#include "schedulers/log_snr_sampler.h"
#include "schedulers/sigma_sampler.h"
#include "schedulers/timestep_sampler.h"

namespace xdit::schedulers {
namespace {

struct Entry {
  std::string_view name;
  std::unique_ptr<Sampler> (*make)(const Schedule&);
};
constexpr std::array kSamplers{
    Entry{"euler", make_euler},
    Entry{"euler-ancestral", make_euler_ancestral},
    Entry{"heun", make_heun},
    Entry{"dpm++-2m", make_dpm_2m},
    Entry{"dpm++-2m-sde", make_dpm_2m_sde},
    Entry{"dpm++-2s-ancestral", make_dpm_2s_ancestral},
    Entry{"dpm-2", make_dpm_2},
    Entry{"ddim", make_ddim},
    Entry{"ddpm", make_ddpm},
    Entry{"pndm", make_pndm},
    Entry{"lms", make_lms},
    Entry{"unipc", make_unipc},
    Entry{"lcm", make_lcm},
};

std::unique_ptr<Sampler> make_flow(const SamplerOptions& options, const nlohmann::json& json) {
  FlowMatchConfig config = read_flow_match_config(json, kConfigFile);
  if (options.name == "flow-match-heun")
    return make_flow_match_heun(flow_match_heun_schedule(config, options.steps, options.shift));
  config.sigmas = sigmas_of(options, config.sigmas);
  return make_flow_match_euler(flow_match_schedule(config, options.steps, options.image_tokens, options.shift,
                                                   options.sigmas == "simple"));
}

}  // namespace

std::unique_ptr<Sampler> make_sampler(const SamplerOptions& options, const nlohmann::json& config) {
  const std::optional<Schedule> schedule = schedule_of(options, config);
  if (!schedule) return make_flow(options, config);
  const auto* entry = std::find_if(kSamplers.begin(), kSamplers.end(),
                                   [&](const Entry& e) { return e.name == options.name; });
  XDIT_ASSERT(entry != kSamplers.end());
  return entry->make(*schedule);
}

}  // namespace xdit::schedulers
