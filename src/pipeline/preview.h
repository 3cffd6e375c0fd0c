#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>

#include "models/registry.h"
#include "output/preview.h"
#include "schedulers/sampler.h"

namespace xdit::pipeline {

/// Small pictures of what latents lead to, between evaluations of the sampler.
class Preview {
 public:
  /// `every` so many evaluations; 0: none. The model's latents have a projection then.
  Preview(std::int64_t every, const models::Model& model, const schedulers::Sampler& sampler);
  [[nodiscard]] bool enabled() const { return every_ > 0; }
  /// After the first `evaluations` of the whole schedule; not after all: the picture itself follows.
  [[nodiscard]] bool due(std::int64_t evaluations) const;
  /// The picture that latents before (undefined: not known) and after the evaluation lie on the way to: both
  /// are taken for mixtures of it and one noise. Of each element alone, in the latents' dtype.
  [[nodiscard]] at::Tensor towards(std::int64_t evaluation, const at::Tensor& before,
                                   const at::Tensor& after) const;
  /// [C, h, w] as a PNG of w x h in place of the one before.
  void write(const at::Tensor& latents, const std::filesystem::path& path) const;

 private:
  std::int64_t every_;
  std::optional<output::Projection> projection_;
  const schedulers::Sampler& sampler_;
};

}  // namespace xdit::pipeline
