#pragma once
#include <cstddef>
#include <memory>

#include "nn/convolution.h"
#include "nn/cudnn_attention.h"

namespace xdit::nn {

/// What cuDNN has built on a rank's GPU, 0.1 - 0.5 s of work, for whoever is to share it.
struct BuiltKernels {
  std::shared_ptr<Convolutions> convolutions = std::make_shared<Convolutions>();
  /// Those in float32 may round their factors to 11 bits.
  std::shared_ptr<Convolutions> rounding_convolutions = std::make_shared<Convolutions>(/*tf32=*/true);
  std::shared_ptr<cudnn::Attentions> attentions = std::make_shared<cudnn::Attentions>();
  [[nodiscard]] std::size_t count() const {
    return convolutions->count() + rounding_convolutions->count() + attentions->count();
  }
};

}  // namespace xdit::nn
