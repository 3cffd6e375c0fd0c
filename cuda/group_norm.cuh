#pragma once
#include <cstdint>
#include <numeric>

#include "cuda/pictures.h"
#include "cuda/sums.cuh"
#include "cuda/vector.cuh"

/// What group norms by rows and of whole pictures compute, in the same order: the same bits.
namespace xdit::cuda {

constexpr int kNormThreads = 256;  // that share a row, or a block's pixels

struct Moments {
  float count;
  float mean;
  float squares;  // of differences from the mean, summed
};

/// Of two sets together (Chan, Golub & LeVeque 1979).
__device__ inline Moments merged(Moments a, Moments b) {
  const float count = a.count + b.count;
  if (count == 0) return a;
  const float share = b.count / count;
  const float delta = b.mean - a.mean;
  return {count, a.mean + delta * share, a.squares + b.squares + delta * delta * (a.count * share)};
}

template <class T>
__device__ inline float shift_of(const Shift& shift, unsigned picture, int channel) {
  return shift.values == nullptr
             ? 0.0F
             : to_float(static_cast<const T*>(shift.values)[picture * shift.picture_stride + channel]);
}

/// A row of a slice of whole groups, from `channel_of_slice` on.
struct RowSlice {
  int columns;
  int channels;
  int group;
  int slice;
  unsigned picture;
  int first_channel;
};

/// Floats of shared memory that row_moments_of wants.
__host__ __device__ inline int row_moments_floats(const int threads, const int vectors, const int slice,
                                                  const int group) {
  return 2 * (threads / vectors * slice) + (slice / group + 1) / 2 * 2;
}

/// moments [groups of the slice] of a row, by blockDim.x threads: a thread takes every `lanes`-th pixel of N
/// channels, then a warp a group adds its channels and lanes up. Sums are of differences from the mean of
/// some of the group's values, since those of the values themselves would cancel. All threads of the block
/// call it, those whose row is not `here` as well.
template <class T, int N>
__device__ void row_moments_of(const T* from, const Shift& shift, const RowSlice& row, bool here,
                               float2* sums, float2* moments) {
  const int vectors = row.slice / N;
  const int groups = row.slice / row.group;
  const int lanes = static_cast<int>(blockDim.x) / vectors;
  const int channel = static_cast<int>(threadIdx.x) % vectors * N;
  const int lane = static_cast<int>(threadIdx.x) / vectors;
  auto* means = reinterpret_cast<float*>(sums + lanes * row.slice);
  const int in_warp = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  for (int i = warp; here && i < groups; i += warps) {
    const int pixel = in_warp * row.columns / 32;
    const int of = i * row.group + in_warp % row.group;
    const float value =
        to_float(from[pixel * row.channels + of]) + shift_of<T>(shift, row.picture, row.first_channel + of);
    const float some = sum_over<32>(value) / 32;
    if (in_warp == 0) means[i] = some;
  }
  __syncthreads();
  if (here && lane < lanes) {
    float mean[N];
#pragma unroll
    for (int j = 0; j < N; ++j)
      mean[j] =
          means[(channel + j) / row.group] - shift_of<T>(shift, row.picture, row.first_channel + channel + j);
    float sum[N] = {};
    float squares[N] = {};
#pragma unroll 4
    for (int column = lane; column < row.columns; column += lanes) {
      float a[N];
      load<N>(from + static_cast<std::int64_t>(column) * row.channels + channel, a);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float difference = a[j] - mean[j];
        sum[j] += difference;
        squares[j] += difference * difference;
      }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) sums[lane * row.slice + channel + j] = {sum[j], squares[j]};
  }
  __syncthreads();
  for (int i = warp; here && i < groups; i += warps) {
    float2 whole = {};
    for (int j = in_warp; j < row.group * lanes; j += 32) {
      const float2 of = sums[j / row.group * row.slice + i * row.group + j % row.group];
      whole.x += of.x;
      whole.y += of.y;
    }
    whole = {sum_over<32>(whole.x), sum_over<32>(whole.y)};
    const float more = whole.x / static_cast<float>(row.group * row.columns);
    if (in_warp == 0) moments[i] = {means[i] + more, fmaxf(whole.y - whole.x * more, 0)};
  }
}

/// Mean and variance of all rows, whose moments are at rows[i * step], by `threads` that `sync` joins: one
/// binary tree over the rows, which it overwrites.
template <class Sync>
__device__ float2 merge_rows_of(float2* rows, int step, int count, float row_elements, int thread,
                                int threads, Sync&& sync) {
  for (int stride = 1; stride < count; stride *= 2) {
    for (int i = 2 * stride * thread; i + stride < count; i += 2 * stride * threads) {
      float2& left = rows[i * step];
      const float2 right = rows[(i + stride) * step];
      const auto right_rows = static_cast<float>(min(stride, count - i - stride));
      const Moments both = merged({row_elements * static_cast<float>(stride), left.x, left.y},
                                  {row_elements * right_rows, right.x, right.y});
      left = {both.mean, both.squares};
    }
    sync();
  }
  return {rows->x, rows->y / (row_elements * static_cast<float>(count))};
}

/// Half precision hides what the fast functions lose.
template <class T>
__device__ inline float silu(float x) {
  return sizeof(T) == 4 ? x / (1 + expf(-x)) : __fdividef(x, 1 + __expf(-x));
}

/// N channels from `channel` on of every step-th pixel in [first, end), normalised by their groups' `whole`;
/// pixels before and behind the picture become zeros.
template <class T, int N, bool kSilu>
__device__ void normalise_pixels(const T* __restrict__ x, T* __restrict__ y, const Normalise& arguments,
                                 unsigned picture, int channel, const float2* whole, std::int64_t first,
                                 std::int64_t end, std::int64_t step) {
  float scale[N];
  float bias[N];
  float mean[N];
  load<N>(static_cast<const T*>(arguments.weight) + channel, scale);
  load<N>(static_cast<const T*>(arguments.bias) + channel, bias);
  const int channels = static_cast<int>(arguments.shape.channels);
  const int group = channels / static_cast<int>(arguments.groups);
  const auto moments_of = [&](int index) -> float2 {
    const float variance = whole[index].y + arguments.eps;
    return {whole[index].x,
            sqrtf(variance) / variance};  // NaN, not 0, of an infinite one: overflow stays visible
  };
  int index = channel / group;
  int left = group - channel % group;  // channels of this group from here on
  float2 of_group = moments_of(index);
#pragma unroll
  for (int j = 0; j < N; ++j, --left) {
    if (left == 0) {
      of_group = moments_of(++index);
      left = group;
    }
    mean[j] = of_group.x - shift_of<T>(arguments.shift, picture, channel + j);
    scale[j] *= of_group.y;
  }
  const std::int64_t pixels = arguments.shape.rows * arguments.shape.columns;
  const T* from = x + picture * arguments.x_stride + channel;
  T* to = y + picture * arguments.y_stride + channel;
#pragma unroll 4
  for (std::int64_t pixel = first; pixel < end; pixel += step) {
    float a[N] = {};
    if (pixel >= 0 && pixel < pixels) {
      load<N>(from + pixel * channels, a);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        a[j] = (a[j] - mean[j]) * scale[j] + bias[j];
        if constexpr (kSilu) a[j] = silu<T>(a[j]);
      }
    }
    store<N>(to + pixel * channels, a);
  }
}

/// Channels of a block: whole groups and vectors, 128 bytes and more of a pixel where they divide the
/// channels.
inline int slice_of(int channels, int group, int vector) {
  const int step = std::lcm(group, vector);
  for (int slice = step; slice < channels; slice += step)
    if (slice >= 64 && channels % slice == 0) return slice;
  return channels;
}

}  // namespace xdit::cuda
