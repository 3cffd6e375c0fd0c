#include "config/samplers.h"

#include <array>
#include <cctype>
#include <string>

namespace xdit::config {
namespace {

constexpr std::array kSamplers{
    Sampler{"flow-match-euler", "FlowMatchEulerDiscreteScheduler", "", ""},
    Sampler{"flow-match-heun", "FlowMatchHeunDiscreteScheduler", "", ""},
    Sampler{"euler", "EulerDiscreteScheduler", "Euler", "euler"},
    Sampler{"euler-ancestral", "EulerAncestralDiscreteScheduler", "Euler a", "euler_ancestral"},
    Sampler{"heun", "HeunDiscreteScheduler", "Heun", "heun"},
    Sampler{"dpm++-2m", "DPMSolverMultistepScheduler", "DPM++ 2M", "dpmpp_2m"},
    Sampler{"dpm++-2m-sde", "", "DPM++ 2M SDE", "dpmpp_2m_sde"},
    Sampler{"dpm++-2s-ancestral", "", "DPM++ 2S a", "dpmpp_2s_ancestral"},
    Sampler{"dpm-2", "KDPM2DiscreteScheduler", "DPM2", "dpm_2"},
    Sampler{"ddim", "DDIMScheduler", "DDIM", "ddim"},
    Sampler{"ddpm", "DDPMScheduler", "", "ddpm"},
    Sampler{"pndm", "PNDMScheduler", "PLMS", ""},
    Sampler{"lms", "LMSDiscreteScheduler", "LMS", "lms"},
    Sampler{"unipc", "UniPCMultistepScheduler", "UniPC", "uni_pc"},
    Sampler{"lcm", "LCMScheduler", "LCM", "lcm"},
};

constexpr std::array<std::string_view, 6> kSigmas{"",     "karras",      "exponential",
                                                  "beta", "sgm-uniform", "simple"};

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

std::optional<SpelledSampler> find_sampler(std::string_view spelling) {
  const std::string wanted = folded(spelling);
  for (const Sampler& sampler : kSamplers)
    for (const std::string_view known : {sampler.name, sampler.diffusers, sampler.a1111, sampler.comfyui})
      for (const std::string_view sigmas : kSigmas)
        if (!known.empty() && wanted == folded(known) + folded(sigmas))
          return SpelledSampler{sampler.name, sigmas};
  return std::nullopt;
}

std::string_view sampler_for(std::string_view name, bool flow_matching) {
  const std::string other = "flow-match-" + std::string(name);
  for (const Sampler& sampler : kSamplers)
    if (flow_matching && sampler.name == other) return sampler.name;
  return name;
}

}  // namespace xdit::config
