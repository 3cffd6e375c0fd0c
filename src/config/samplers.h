#pragma once
#include <optional>
#include <span>
#include <string_view>

namespace xdit::config {

/// A scheduler and how others spell it; case, spaces, '-' and '_' do not matter.
struct Sampler {
  std::string_view name;       ///< ours: "flow-match-euler"
  std::string_view diffusers;  ///< class, "FlowMatchEulerDiscreteScheduler"
  std::string_view a1111;      ///< "Euler", or ""
  std::string_view comfyui;    ///< "euler", or ""
};
[[nodiscard]] std::span<const Sampler> samplers();

/// Our names of a scheduler and of the noise levels that its spelling asks for.
struct SpelledSampler {
  std::string_view name;
  std::string_view sigmas;  ///< "karras", or "" where it does not say
};
/// A scheduler in any of these spellings, perhaps with noise levels behind it: "DPM++ 2M Karras".
[[nodiscard]] std::optional<SpelledSampler> find_sampler(std::string_view spelling);

/// For models of flow matching, the scheduler that others call by the same name ("euler":
/// "flow-match-euler").
[[nodiscard]] std::string_view sampler_for(std::string_view name, bool flow_matching);

}  // namespace xdit::config
