#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "comm/group.h"

namespace xdit::parallel {

/// Gives rank 0's tensors to all ranks of a group.
class TensorBroadcast {
 public:
  /// `options`: of the tensors.
  TensorBroadcast(comm::Group& group, const at::TensorOptions& options) : group_(group), options_(options) {}
  /// Collective; only rank 0's `tensor` counts, of at most 4 dimensions.
  [[nodiscard]] at::Tensor operator()(const at::Tensor& tensor);

 private:
  comm::Group& group_;
  at::TensorOptions options_;
  std::optional<comm::PeerBuffer> buffer_;
};

}  // namespace xdit::parallel
