#pragma once
#include <optional>
#include <span>
#include <string_view>

namespace xdit::config {

/// A scheduler and how others spell it; case, spaces, '-' and '_' do not matter.
struct Sampler {
  std::string_view name;       ///< ours: "flow-match-euler"
  std::string_view diffusers;  ///< class, "FlowMatchEulerDiscreteScheduler"
  std::string_view a1111;      ///< "Euler"
  std::string_view comfyui;    ///< "euler"
};
[[nodiscard]] std::span<const Sampler> samplers();

/// Our name of a scheduler in any of these spellings.
[[nodiscard]] std::optional<std::string_view> find_sampler(std::string_view spelling);

}  // namespace xdit::config
