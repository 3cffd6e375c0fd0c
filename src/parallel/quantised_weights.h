#pragma once
#include <vector>

#include "nn/quantise.h"
#include "parallel/load.h"
#include "parallel/plan.h"

namespace xdit::parallel {

/// The matrices of a network that a plan holds in e4m3: read in the run's dtype, then quantised on the
/// device.
class QuantisedWeights {
 public:
  /// Puts memory for `NAME` in e4m3 and for its scales (`NAME_scale`) in place of those of `tensors` that the
  /// plan quantises.
  QuantisedWeights(const Plan& plan, const Loading& loading, Tensors& tensors);
  [[nodiscard]] bool empty() const { return matrices_.empty(); }
  /// What has been read. When the device is done, this may go, and with it the memory that was read to.
  void quantise() const;

 private:
  struct Matrix {
    at::Tensor read;
    nn::Rows held;
  };
  std::vector<Matrix> matrices_;
};

}  // namespace xdit::parallel
