#pragma once
#include <ATen/core/Tensor.h>

#include "schedulers/diffusion_config.h"

namespace xdit::schedulers {

/// The picture in latents x = picture + sigma noise, from the model's output there.
[[nodiscard]] at::Tensor denoised(Prediction prediction, const at::Tensor& x, const at::Tensor& output,
                                  float sigma);

/// Latents x = alpha picture + sigma noise with alpha^2 + sigma^2 = 1, taken apart.
struct Mixture {
  float alpha = 1;
  float sigma = 0;
};
[[nodiscard]] at::Tensor picture_in(Prediction prediction, const at::Tensor& x, const at::Tensor& output,
                                    const Mixture& mixture);
[[nodiscard]] at::Tensor noise_in(Prediction prediction, const at::Tensor& x, const at::Tensor& output,
                                  const Mixture& mixture);

}  // namespace xdit::schedulers
