#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

#include "nn/ops.h"

namespace xdit::nn {

/// The residual stream of a transformer: rows [T, C] that layers read through a norm and add to, in place. An
/// update waits for the norm behind it, so that one pass over the rows does both, with the same bits.
class ResidualStream {
 public:
  explicit ResidualStream(at::Tensor rows) : rows_(std::move(rows)) {}

  [[nodiscard]] std::int64_t tokens() const { return rows_.size(0); }
  [[nodiscard]] at::TensorOptions options() const { return rows_.options(); }

  /// += gate y, as add_gated. Both keep their values until the next norm or settle().
  void add(const at::Tensor& gate, at::Tensor y);
  /// As modulated_rows.
  [[nodiscard]] Rows normed(const at::Tensor& shift, const at::Tensor& scale, bool quantised = false);
  /// The rows, with every update.
  const at::Tensor& settle();
  /// Goes on with rows [first, first + count) alone; what waits for the others is dropped.
  void keep(std::int64_t first, std::int64_t count);

 private:
  at::Tensor rows_;
  GatedUpdate waiting_;
};

}  // namespace xdit::nn
