#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace xdit::schedulers {

/// What a solver remembers of one picture between steps.
struct History {
  std::vector<at::Tensor> outputs;  ///< of the model, latest last
};

/// Turns predictions into the next latents. Immutable: a picture's state is its History.
class Sampler {
 public:
  Sampler() = default;
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;
  virtual ~Sampler() = default;
  [[nodiscard]] virtual std::span<const float> timesteps() const = 0;  ///< of the steps, 0..1000
  /// Latents after step `step` (0-based) from those before it and the model's output there, in the output's
  /// dtype.
  [[nodiscard]] virtual at::Tensor step(std::int64_t step, const at::Tensor& latents,
                                        const at::Tensor& output, History& history) const = 0;
};

struct SamplerOptions {
  std::string name;  ///< "flow-match-euler"
  std::int64_t steps = 1;
  std::int64_t image_tokens = 0;  ///< for a shift by size
  std::optional<double> shift;    ///< replaces the config's
};

/// The sampler of that name under the model's scheduler_config.json; Error(kUsage) for one that does not
/// exist.
[[nodiscard]] std::unique_ptr<Sampler> make_sampler(const SamplerOptions& options,
                                                    const nlohmann::json& config);

}  // namespace xdit::schedulers
