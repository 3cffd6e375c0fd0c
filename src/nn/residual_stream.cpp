#include "nn/residual_stream.h"

#include <ATen/ATen.h>

namespace xdit::nn {

void ResidualStream::add(const at::Tensor& gate, at::Tensor y) {
  settle();
  waiting_ = {gate, std::move(y)};
}

Rows ResidualStream::normed(const at::Tensor& shift, const at::Tensor& scale, bool quantised) {
  return modulated_rows(rows_, shift, scale, quantised, std::exchange(waiting_, {}));
}

const at::Tensor& ResidualStream::settle() {
  if (const GatedUpdate update = std::exchange(waiting_, {}); update.y.defined()) add_gated(rows_, update);
  return rows_;
}

void ResidualStream::keep(std::int64_t first, std::int64_t count) {
  rows_ = rows_.narrow(0, first, count);
  if (waiting_.y.defined()) waiting_.y = waiting_.y.narrow(0, first, count);
}

}  // namespace xdit::nn
