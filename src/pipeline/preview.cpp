#include "pipeline/preview.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "core/file.h"
#include "output/png.h"

namespace xdit::pipeline {
namespace {

/// Latents before an evaluation: so much of the picture and so much of noise.
struct Mixture {
  double picture;
  double noise;
};

Mixture mixture_at(const schedulers::Sampler& sampler, std::int64_t evaluation) {
  const at::Tensor one = at::ones({}, at::kFloat);
  const at::Tensor none = at::zeros({}, at::kFloat);
  return {sampler.begin(none, one, evaluation).item<double>(),
          sampler.begin(one, none, evaluation).item<double>()};
}

}  // namespace

Preview::Preview(std::int64_t every, const models::Model& model, const schedulers::Sampler& sampler)
    : every_(every),
      projection_(output::projection_of(model.family, model.shape.latent_channels)),
      sampler_(sampler) {
  XDIT_ASSERT(every_ == 0 || projection_);
}

bool Preview::due(std::int64_t evaluations) const {
  return enabled() && evaluations % every_ == 0 && evaluations < std::ssize(sampler_.timesteps());
}

at::Tensor Preview::towards(std::int64_t evaluation, const at::Tensor& before,
                            const at::Tensor& after) const {
  const Mixture from = mixture_at(sampler_, evaluation);
  const Mixture to = mixture_at(sampler_, evaluation + 1);
  const double change = from.noise * to.picture - to.noise * from.picture;
  const bool moved = before.defined() && before.sizes() == after.sizes() && std::abs(change) > 1e-6;
  if (!moved) return after / to.picture;
  const at::Tensor picture = (from.noise * after.to(at::kFloat) - to.noise * before.to(at::kFloat)) / change;
  return picture.to(after.scalar_type());
}

void Preview::write(const at::Tensor& latents, const std::filesystem::path& path) const {
  const at::Tensor values = latents.to(at::kCPU, at::kFloat).contiguous();
  const std::vector<std::uint8_t> rgb = output::projected(
      *projection_, {values.const_data_ptr<float>(), static_cast<std::size_t>(values.numel())});
  write_file_atomically(path, output::encode_png(rgb, values.size(2), values.size(1)), /*overwrite=*/true);
}

}  // namespace xdit::pipeline
