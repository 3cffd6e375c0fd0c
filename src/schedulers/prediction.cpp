#include "schedulers/prediction.h"

#include <ATen/ATen.h>

#include <cmath>

// In the order of diffusers' operations, so that float32 rounds alike.
namespace xdit::schedulers {

at::Tensor denoised(Prediction prediction, const at::Tensor& x, const at::Tensor& output, float sigma) {
  if (prediction == Prediction::kSample) return output;
  if (prediction == Prediction::kEpsilon) return x - output * sigma;
  const float power = sigma * sigma + 1;
  return output * (-sigma / std::sqrt(power)) + x / power;
}

at::Tensor picture_in(Prediction prediction, const at::Tensor& x, const at::Tensor& output,
                      const Mixture& mixture) {
  if (prediction == Prediction::kSample) return output;
  if (prediction == Prediction::kEpsilon) return (x - output * mixture.sigma) / mixture.alpha;
  return x * mixture.alpha - output * mixture.sigma;
}

at::Tensor noise_in(Prediction prediction, const at::Tensor& x, const at::Tensor& output,
                    const Mixture& mixture) {
  if (prediction == Prediction::kSample) return (x - output * mixture.alpha) / mixture.sigma;
  if (prediction == Prediction::kEpsilon) return output;
  return output * mixture.alpha + x * mixture.sigma;
}

}  // namespace xdit::schedulers
