#include "parallel/tensor_broadcast.h"

#include <ATen/ATen.h>

#include <array>
#include <cstring>
#include <span>

#include "core/error.h"
#include "parallel/device_stream.h"

namespace xdit::parallel {

at::Tensor TensorBroadcast::operator()(const at::Tensor& tensor) {
  std::array<std::int64_t, 5> shape{};  // dimensions, and how many
  if (group_.rank() == 0) {
    XDIT_ASSERT(tensor.dim() < static_cast<std::int64_t>(shape.size()));
    std::copy(tensor.sizes().begin(), tensor.sizes().end(), shape.begin());
    shape.back() = tensor.dim();
  }
  const std::vector<comm::Group::Shared> all = group_.share(std::as_bytes(std::span(shape)));
  std::memcpy(shape.data(), all.front().data(), sizeof shape);
  at::Tensor result = at::empty({shape.data(), static_cast<std::size_t>(shape.back())}, options_);
  const auto bytes = static_cast<std::int64_t>(result.nbytes());
  if (!buffer_ || buffer_->bytes() < bytes) buffer_ = group_.allocate(bytes);
  const at::Tensor source = group_.rank() == 0 ? tensor.contiguous() : result;
  group_.broadcast(source.const_data_ptr(), bytes, 0, *buffer_, current_stream(options_.device()));
  return result.copy_(at::from_blob(buffer_->data(), result.sizes(), options_));
}

}  // namespace xdit::parallel
