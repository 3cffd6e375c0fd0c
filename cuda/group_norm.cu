#include <numeric>

#include "cuda/kernels.h"
#include "cuda/sums.cuh"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

constexpr int kThreads = 256;

struct Moments {
  float count;
  float mean;
  float squares;  // of differences from the mean, summed
};

// Of two sets together (Chan, Golub & LeVeque 1979).
__device__ Moments merged(Moments a, Moments b) {
  const float count = a.count + b.count;
  if (count == 0) return a;
  const float share = b.count / count;
  const float delta = b.mean - a.mean;
  return {count, a.mean + delta * share, a.squares + b.squares + delta * delta * (a.count * share)};
}

template <class T>
__device__ float shift_of(const Shift& shift, unsigned picture, int channel) {
  return shift.values == nullptr
             ? 0.0F
             : to_float(static_cast<const T*>(shift.values)[picture * shift.picture_stride + channel]);
}

// A block a row of a slice of whole groups: a thread takes every `lanes`-th pixel of N channels, then a warp
// a group adds its channels and lanes up. Sums are of differences from the mean of some of the group's
// values, since those of the values themselves would cancel.
template <class T, int N>
__global__ void row_moments_kernel(const T* x, std::int64_t x_stride, Shift shift, Picture shape, int group,
                                   int slice, float2* moments) {
  extern __shared__ float2 sums[];  // [lanes, channels of the slice], then means [groups of the slice]
  const int channels = static_cast<int>(shape.channels);
  const int columns = static_cast<int>(shape.columns);
  const int vectors = slice / N;
  const int groups = slice / group;
  const int lanes = static_cast<int>(blockDim.x) / vectors;
  const int channel = static_cast<int>(threadIdx.x) % vectors * N;
  const int lane = static_cast<int>(threadIdx.x) / vectors;
  auto* means = reinterpret_cast<float*>(sums + lanes * slice);
  const std::int64_t row = blockIdx.z * shape.rows + blockIdx.x;
  const T* from = x + blockIdx.z * x_stride + static_cast<std::int64_t>(blockIdx.x) * columns * channels +
                  blockIdx.y * slice;
  const int in_warp = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  for (int i = warp; i < groups; i += warps) {
    const int pixel = in_warp * columns / 32;
    const int of = i * group + in_warp % group;
    const float value =
        to_float(from[pixel * channels + of]) + shift_of<T>(shift, blockIdx.z, blockIdx.y * slice + of);
    const float some = sum_over<32>(value) / 32;
    if (in_warp == 0) means[i] = some;
  }
  __syncthreads();
  if (lane < lanes) {
    float mean[N];
#pragma unroll
    for (int j = 0; j < N; ++j)
      mean[j] =
          means[(channel + j) / group] - shift_of<T>(shift, blockIdx.z, blockIdx.y * slice + channel + j);
    float sum[N] = {};
    float squares[N] = {};
#pragma unroll 4
    for (int column = lane; column < columns; column += lanes) {
      float a[N];
      load<N>(from + static_cast<std::int64_t>(column) * channels + channel, a);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float difference = a[j] - mean[j];
        sum[j] += difference;
        squares[j] += difference * difference;
      }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) sums[lane * slice + channel + j] = {sum[j], squares[j]};
  }
  __syncthreads();
  for (int i = warp; i < groups; i += warps) {
    float2 whole = {};
    for (int j = in_warp; j < group * lanes; j += 32) {
      const float2 of = sums[j / group * slice + i * group + j % group];
      whole.x += of.x;
      whole.y += of.y;
    }
    whole = {sum_over<32>(whole.x), sum_over<32>(whole.y)};
    const float more = whole.x / static_cast<float>(group * columns);
    if (in_warp == 0)
      moments[(row * gridDim.y + blockIdx.y) * groups + i] = {means[i] + more,
                                                              fmaxf(whole.y - whole.x * more, 0)};
  }
}

// A block a group of a picture.
__global__ void __launch_bounds__(kThreads)
    merge_rows_kernel(float2* moments, int rows, float row_elements, float2* whole) {
  const int groups = static_cast<int>(gridDim.x);
  float2* mine = moments + static_cast<std::int64_t>(blockIdx.y) * rows * groups + blockIdx.x;
  for (int stride = 1; stride < rows; stride *= 2) {
    for (int i = 2 * stride * static_cast<int>(threadIdx.x); i + stride < rows; i += 2 * stride * kThreads) {
      float2& left = mine[i * groups];
      const float2 right = mine[(i + stride) * groups];
      const auto right_rows = static_cast<float>(min(stride, rows - i - stride));
      const Moments both = merged({row_elements * static_cast<float>(stride), left.x, left.y},
                                  {row_elements * right_rows, right.x, right.y});
      left = {both.mean, both.squares};
    }
    __syncthreads();
  }
  if (threadIdx.x == 0)
    whole[blockIdx.y * groups + blockIdx.x] = {mine->x, mine->y / (row_elements * static_cast<float>(rows))};
}

// Half precision hides what the fast functions lose.
template <class T>
__device__ float silu(float x) {
  return sizeof(T) == 4 ? x / (1 + expf(-x)) : __fdividef(x, 1 + __expf(-x));
}

// N channels of pixels in blockIdx.x and threadIdx.y, channels in blockIdx.y and threadIdx.x; several pixels
// a thread, which share what the channels need.
template <class T, int N, bool kSilu>
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(const T* __restrict__ x, T* __restrict__ y, Normalise arguments) {
  const int channels = static_cast<int>(arguments.shape.channels);
  const int channel = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (channel >= channels) return;
  float scale[N];
  float bias[N];
  float mean[N];
  load<N>(static_cast<const T*>(arguments.weight) + channel, scale);
  load<N>(static_cast<const T*>(arguments.bias) + channel, bias);
  const int group = channels / static_cast<int>(arguments.groups);
  const auto moments_of = [&](int index) -> float2 {
    const auto* whole = reinterpret_cast<const float2*>(arguments.whole) + blockIdx.z * arguments.groups;
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
    mean[j] = of_group.x - shift_of<T>(arguments.shift, blockIdx.z, channel + j);
    scale[j] *= of_group.y;
  }
  const std::int64_t pixels = arguments.shape.rows * arguments.shape.columns;
  const T* from = x + blockIdx.z * arguments.x_stride + channel;
  T* to = y + blockIdx.z * arguments.y_stride + channel;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
#pragma unroll 4
  for (std::int64_t pixel = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; pixel < pixels;
       pixel += step) {
    float a[N];
    load<N>(from + pixel * channels, a);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      a[j] = (a[j] - mean[j]) * scale[j] + bias[j];
      if constexpr (kSilu) a[j] = silu<T>(a[j]);
    }
    store<N>(to + pixel * channels, a);
  }
}

// Channels of a block: whole groups and vectors, 128 bytes and more of a pixel where they divide the
// channels.
int slice_of(int channels, int group, int vector) {
  const int step = std::lcm(group, vector);
  for (int slice = step; slice < channels; slice += step)
    if (slice >= 64 && channels % slice == 0) return slice;
  return channels;
}

}  // namespace

cudaError_t row_moments(Type type, const void* x, std::int64_t x_stride, const Shift& shift,
                        const Picture& shape, std::int64_t groups, float* moments, cudaStream_t stream) {
  if (shape.pictures * shape.rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto channels = static_cast<int>(shape.channels);
    const int group = channels / static_cast<int>(groups);
    const auto launch = [&](auto kernel, int n) {
      const int slice = slice_of(channels, group, n);
      const int vectors = slice / n;
      const int threads = vectors < kThreads ? kThreads : (vectors + 31) / 32 * 32;
      const dim3 grid(static_cast<unsigned>(shape.rows), static_cast<unsigned>(channels / slice),
                      static_cast<unsigned>(shape.pictures));
      const std::size_t shared = static_cast<std::size_t>(threads / vectors * slice) * sizeof(float2) +
                                 static_cast<std::size_t>(slice / group) * sizeof(float);
      kernel<<<grid, threads, shared, stream>>>(static_cast<const T*>(x), x_stride, shift, shape, group,
                                                slice, reinterpret_cast<float2*>(moments));
    };
    constexpr int kVector = 16 / sizeof(T);
    aligned<kVector, T>(x, x_stride, channels) ? launch(row_moments_kernel<T, kVector>, kVector)
                                               : launch(row_moments_kernel<T, 1>, 1);
  });
}

cudaError_t merge_rows(float* moments, std::int64_t pictures, std::int64_t rows, std::int64_t groups,
                       std::int64_t row_elements, float* whole, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(groups), static_cast<unsigned>(pictures));
  merge_rows_kernel<<<grid, kThreads, 0, stream>>>(reinterpret_cast<float2*>(moments), static_cast<int>(rows),
                                                   static_cast<float>(row_elements),
                                                   reinterpret_cast<float2*>(whole));
  return cudaGetLastError();
}

cudaError_t normalise(Type type, const void* x, void* y, const Normalise& arguments, cudaStream_t stream) {
  const Picture& shape = arguments.shape;
  if (shape.pictures * shape.rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&](auto kernel, int n) {
      constexpr std::int64_t kMostBlocks = 1024;
      constexpr std::int64_t kPixels = 4;  // of a thread, where there are enough
      const std::int64_t vectors = shape.channels / n;
      const auto wide = static_cast<unsigned>(vectors < kThreads ? vectors : kThreads);
      const unsigned high = kThreads / wide;
      const std::int64_t blocks = (shape.rows * shape.columns + kPixels * high - 1) / (kPixels * high);
      const dim3 grid(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
                      static_cast<unsigned>((vectors + wide - 1) / wide),
                      static_cast<unsigned>(shape.pictures));
      kernel<<<grid, dim3(wide, high), 0, stream>>>(static_cast<const T*>(x), static_cast<T*>(y), arguments);
    };
    constexpr int kVector = 16 / sizeof(T);
    const std::int64_t channels = shape.channels;
    const bool vectors = aligned<kVector, T>(x, arguments.x_stride, channels) &&
                         aligned<kVector, T>(y, arguments.y_stride, channels) &&
                         aligned<kVector, T>(arguments.weight, 0, channels) &&
                         aligned<kVector, T>(arguments.bias, 0, channels);
    if (arguments.silu)
      vectors ? launch(normalise_kernel<T, kVector, true>, kVector) : launch(normalise_kernel<T, 1, true>, 1);
    else
      vectors ? launch(normalise_kernel<T, kVector, false>, kVector)
              : launch(normalise_kernel<T, 1, false>, 1);
  });
}

}  // namespace xdit::cuda
