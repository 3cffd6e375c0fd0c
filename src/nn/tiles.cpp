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

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                     const at::Tensor& bias, bool causal) {
  const std::int64_t batch = q.size(0), heads = q.size(1), tokens = q.size(2), keys = k.size(2);
  at::Tensor y = at::empty({batch, heads, tokens, v.size(3)}, q.options());
  at::Tensor mask = bias;
  if (causal) {
    mask =
        at::empty({1, 1, tokens, keys}, q.options()).fill_(-std::numeric_limits<float>::infinity()).triu_(1);
  }
  // MKL's result for a query row depends on the row's place in the tile where the head is narrow: zeros widen
  // it.
  constexpr std::int64_t kChannels = 32;
  const std::int64_t dim = v.size(3), widened = (kChannels - dim % kChannels) % kChannels;
  const at::Tensor wide_k = at::constant_pad_nd(k, {0, widened}).contiguous();
  const at::Tensor wide_v = at::constant_pad_nd(v, {0, widened}).contiguous();
  const std::int64_t tiles = count(tokens);
  for_each(batch * heads * tiles, [&](std::int64_t index) {
    const std::int64_t b = index / (heads * tiles), h = index / tiles % heads, i = index % tiles;
    const std::int64_t rows = std::min(kRows, tokens - kRows * i);
    const auto head = [&](const at::Tensor& t) { return t.narrow(0, b, 1).narrow(1, h, 1); };  // [1, 1, S, D]
    std::optional<at::Tensor> tile_mask;
    if (mask.defined()) {
      const at::Tensor of_head = mask.narrow(1, mask.size(1) == 1 ? 0 : h, 1);
      tile_mask = at::constant_pad_nd(of_head.narrow(2, kRows * i, rows), {0, 0, 0, kRows - rows});
    }
    const at::Tensor query = at::constant_pad_nd(tile(q[b][h], i), {0, widened}).view({1, 1, kRows, -1});
    const at::Tensor out =
        at::scaled_dot_product_attention(query, head(wide_k), head(wide_v), tile_mask, 0.0, false, scale);
    y[b][h].narrow(0, kRows * i, rows).copy_(out[0][0].narrow(0, 0, rows).narrow(1, 0, dim));
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
