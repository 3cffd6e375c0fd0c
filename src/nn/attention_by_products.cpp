#include "nn/attention_by_products.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "nn/linear.h"
#include "nn/ops.h"

namespace xdit::nn {

at::Tensor attention_by_products(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                                 bool tf32, std::int64_t rows) {
  XDIT_ASSERT(scale > 0 && k.size(2) > 0);
  constexpr std::int64_t kBytes = std::int64_t{1} << 28U, kFewestRows = 1024;
  constexpr std::int64_t kStep = 8;  // what products want rows to be a multiple of
  const std::int64_t tokens = q.size(2), keys = k.size(2), more = (kStep - keys % kStep) % kStep;
  const std::int64_t row_bytes = (keys + more) * static_cast<std::int64_t>(sizeof(float));
  if (rows == 0) rows = std::max(kFewestRows, kBytes / row_bytes);
  at::Tensor y = at::empty({q.size(0), q.size(1), tokens, v.size(3)}, q.options());
  const at::Tensor weights = at::zeros({std::min(rows, tokens), keys + more}, q.options());
  for (std::int64_t head = 0; head < q.size(0) * q.size(1); ++head) {
    const auto of_head = [&](const at::Tensor& x) { return x[head / q.size(1)][head % q.size(1)]; };
    const at::Tensor key = at::constant_pad_nd(of_head(k), {0, 0, 0, more});
    const at::Tensor value = at::constant_pad_nd(of_head(v).t(), {0, more}).contiguous();  // [D, S]
    for (std::int64_t first = 0; first < tokens; first += rows) {
      const std::int64_t count = std::min(rows, tokens - first);
      const auto of_rows = [&](const at::Tensor& x) { return of_head(x).narrow(0, first, count); };
      const at::Tensor scores = linear_partial(of_rows(q), key, tf32);  // [T, S]
      const at::Tensor numerators = weights.narrow(0, 0, count);        // zeros stay behind the last key
      const at::Tensor sums =
          softmax_numerators(numerators.narrow(1, 0, keys), scores.narrow(1, 0, keys), scale);
      at::Tensor out = of_rows(y);
      at::div_out(out, linear_partial(numerators, value, tf32), sums.unsqueeze(1));
    }
  }
  return y;
}

}  // namespace xdit::nn
