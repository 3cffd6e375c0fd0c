#include "nn/tiles.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace xdit::nn::tiles {
namespace {

std::int64_t count(std::int64_t rows) {
  return (rows + kRows - 1) / kRows;
}

// Rows [32 i, 32 i + 32) of x, contiguous, zeros past the end.
at::Tensor tile(const at::Tensor& x, std::int64_t i) {
  const std::int64_t rows = std::min(kRows, x.size(0) - kRows * i);
  const at::Tensor part = x.narrow(0, kRows * i, rows);
  if (rows == kRows) return part.contiguous();
  at::Tensor padded = at::zeros({kRows, x.size(1)}, x.options());
  padded.narrow(0, 0, rows).copy_(part);
  return padded;
}

// The activation of a tile [32, C] in blocks of one shape without a remainder: the last elements of a vector
// loop take scalar code.
at::Tensor activated(const at::Tensor& rows, Activation activation) {
  constexpr std::int64_t kColumns = 64;
  const std::int64_t width = rows.size(1);
  const std::int64_t blocks = (width + kColumns - 1) / kColumns;
  at::Tensor out = at::empty({kRows, width}, rows.options());
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int64_t columns = std::min(kColumns, width - kColumns * i);
    const at::Tensor part = rows.narrow(1, kColumns * i, columns);
    const at::Tensor block =
        nn::activate(at::constant_pad_nd(part, {0, kColumns - columns}).contiguous(), activation);
    out.narrow(1, kColumns * i, columns).copy_(block.narrow(1, 0, columns));
  }
  return out;
}

void put(const at::Tensor& tile, const at::Tensor& out, std::int64_t i) {
  const std::int64_t rows = std::min(kRows, out.size(0) - kRows * i);
  out.narrow(0, kRows * i, rows).copy_(tile.narrow(0, 0, rows));
}

}  // namespace

OneThread::OneThread() : threads_(at::get_num_threads()) {
  at::set_num_threads(1);
}
OneThread::~OneThread() {
  at::set_num_threads(threads_);
}

void for_each(std::int64_t tiles, const std::function<void(std::int64_t)>& f) {
  const int threads = at::get_num_threads();
  const bool inference = c10::InferenceMode::is_enabled();  // is of the thread
  const auto run = [&](std::int64_t first, std::int64_t last) {
    const c10::InferenceMode mode(inference);
    for (std::int64_t i = first; i < last; ++i) f(i);
  };
  if (tiles > 1 && threads > 1) {
    at::parallel_for(0, tiles, 1, run);
    return;
  }
  const OneThread alone;  // outside a parallel region the libraries would use them all
  run(0, tiles);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const Activation* activation) {
  const at::Tensor rows = x.dim() == 2 ? x : x.reshape({-1, x.size(-1)});
  at::Tensor y = at::empty({rows.size(0), weight.size(0)}, x.options());
  for_each(count(rows.size(0)), [&](std::int64_t i) {
    const at::Tensor product = at::linear(tile(rows, i), weight, bias);
    put(activation == nullptr ? product : activated(product, *activation), y, i);
  });
  if (x.dim() == 2) return y;
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return y.view(shape);
}

void activate(const at::Tensor& x, Activation activation, const at::Tensor& out) {
  for_each(count(x.size(0)), [&](std::int64_t i) { put(activated(tile(x, i), activation), out, i); });
}

// Products of one shape from aligned memory, in float32: LibTorch's own kernel lays its buffers out by the
// number of threads, and the bits of MKL's products depend on where they lie. They also depend on the row's
// place in the tile where a head is narrow: zeros widen it, and fill up the keys.
AttentionPart attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                        const at::Tensor& bias, bool causal) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const std::int64_t batch = q.size(0), heads = q.size(1), tokens = q.size(2), keys = k.size(2);
  const std::int64_t dim = v.size(3), all_keys = count(keys) * kRows;
  const auto wide = [](const at::Tensor& t, std::int64_t more_rows) {
    const std::int64_t more = count(t.size(-1)) * kRows - t.size(-1);
    return at::constant_pad_nd(t.to(at::kFloat), {0, more, 0, more_rows}).contiguous();
  };
  const at::Tensor wide_k = wide(k, all_keys - keys), wide_v = wide(v, all_keys - keys);
  at::Tensor mask;  // [1, H or 1, T or 1, all keys]
  if (causal)
    mask = at::full({1, 1, tokens, all_keys}, kNever).triu_(1);
  else if (bias.defined())
    mask = at::constant_pad_nd(bias.to(at::kFloat), {0, all_keys - keys}, kNever);
  else if (all_keys > keys)
    mask = at::constant_pad_nd(at::zeros({1, 1, 1, keys}), {0, all_keys - keys}, kNever);
  AttentionPart y{at::empty({batch, heads, tokens, dim}, q.options()),
                  at::empty({batch, heads, tokens}, q.options().dtype(at::kFloat))};
  const std::int64_t tiles = count(tokens);
  for_each(batch * heads * tiles, [&](std::int64_t index) {
    const std::int64_t b = index / (heads * tiles), h = index / tiles % heads, i = index % tiles;
    const std::int64_t rows = std::min(kRows, tokens - kRows * i);
    at::Tensor scores = at::mm(wide(tile(q[b][h], i), 0), wide_k[b][h].t()).mul_(scale);  // [32, all keys]
    if (mask.defined()) {
      const at::Tensor of_head = mask[0][mask.size(1) == 1 ? 0 : h];
      if (of_head.size(0) == 1)
        scores.add_(of_head);
      else
        scores.narrow(0, 0, rows).add_(of_head.narrow(0, kRows * i, rows));
    }
    const at::Tensor most = scores.amax(1, /*keepdim=*/true);
    scores.sub_(most).exp_();
    const at::Tensor sum = scores.sum(1, /*keepdim=*/true);
    const at::Tensor out = at::mm(scores, wide_v[b][h]).div_(sum);
    const auto put_rows = [&](const at::Tensor& to, const at::Tensor& from) {
      to[b][h].narrow(0, kRows * i, rows).copy_(from.narrow(0, 0, rows));
    };
    put_rows(y.out, out.narrow(1, 0, dim));
    put_rows(y.log_sum_exp, sum.log_().add_(most).squeeze(1));
  });
  return y;
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       std::int64_t row_padding, std::int64_t stride) {
  const std::int64_t kernel = weight.size(2), columns = (x.size(3) - 1) / stride + 1, channels = x.size(1);
  const std::int64_t rows = (x.size(2) + 2 * row_padding - kernel) / stride + 1;
  const std::int64_t side = kernel / 2;
  const at::Tensor padded = at::constant_pad_nd(x, {side, side, row_padding, row_padding})
                                .permute({0, 2, 3, 1})
                                .contiguous();  // [B, H + 2 p, W + K - 1, C]
  const at::Tensor matrix = weight.permute({0, 2, 3, 1}).reshape({weight.size(0), -1});  // [O, K K C]
  const at::Tensor y = at::empty({x.size(0), rows, columns, weight.size(0)}, x.options());
  const std::int64_t width = count(columns) * kRows;
  for_each(x.size(0) * rows, [&](std::int64_t index) {
    const at::Tensor picture = padded[index / rows];
    const std::int64_t row = index % rows;
    const std::int64_t line = picture.stride(0);
    // Every window of this row: [W, K, K, C], overlapping in memory.
    const at::Tensor windows =
        picture.narrow(0, stride * row, kernel)
            .as_strided({columns, kernel, kernel, channels}, {stride * channels, line, channels, 1},
                        picture.storage_offset() + stride * row * line);
    const at::Tensor patches = at::zeros({width, kernel * kernel * channels}, x.options());
    patches.narrow(0, 0, columns).view({columns, kernel, kernel, channels}).copy_(windows);
    y[index / rows][row].copy_(at::linear(patches, matrix, bias).narrow(0, 0, columns));
  });
  return y.permute({0, 3, 1, 2});
}

}  // namespace xdit::nn::tiles
