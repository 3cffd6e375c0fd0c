#include "config/samplers.h"

#include <array>
#include <cctype>
#include <string>

namespace xdit::config {
namespace {

constexpr std::array kSamplers{
    Sampler{"flow-match-euler", "FlowMatchEulerDiscreteScheduler", "Euler", "euler"},
};

std::string folded(std::string_view text) {
  std::string letters;
  for (const unsigned char c : text)
    if (c != ' ' && c != '-' && c != '_') letters += static_cast<char>(std::tolower(c));
  return letters;
}

}  // namespace

std::span<const Sampler> samplers() {
  return kSamplers;
}

std::optional<std::string_view> find_sampler(std::string_view spelling) {
  const std::string wanted = folded(spelling);
  for (const Sampler& sampler : kSamplers)
    for (const std::string_view known : {sampler.name, sampler.diffusers, sampler.a1111, sampler.comfyui})
      if (wanted == folded(known)) return sampler.name;
  return std::nullopt;
}

}  // namespace xdit::config
