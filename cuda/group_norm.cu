#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "cuda/pictures.h"
#include "cuda/sums.cuh"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

constexpr int kNormThreads = 256;

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

// n / d by a product, for n d < 2^32.
class Divisor {
 public:
  explicit Divisor(int by) : factor_((std::uint64_t{1} << 32U) / static_cast<unsigned>(by) + 1) {}
  friend __device__ int operator/(int n, const Divisor& by) {
    return static_cast<int>((static_cast<unsigned>(n) * by.factor_) >> 32U);
  }

 private:
  std::uint64_t factor_;
};

// How many groups N neighbouring channels belong to at most.
int groups_across(int n, int group) {
  return std::min(n, (group + n - 2) / group + 1);
}

// Channels of a block: whole groups in vectors of N. Its threads take every `lanes`-th pixel.
struct Slice {
  Slice(int n, int threads, int all_channels, int channels_a_group, int channels)
      : picture_channels(all_channels),
        channels(channels),
        group(channels_a_group),
        groups(channels / channels_a_group),
        vectors(channels / n),
        lanes(threads / vectors),
        across(groups_across(n, channels_a_group)),
        by_group(channels_a_group),
        by_vectors(vectors) {}
  [[nodiscard]] std::size_t shared_bytes() const {
    return static_cast<std::size_t>(across * vectors * lanes) * sizeof(float2) +
           static_cast<std::size_t>(groups) * sizeof(float);
  }
  int picture_channels, channels, group, groups, vectors, lanes, across;
  Divisor by_group, by_vectors;
};

// A block a row of a slice: a thread adds its pixels of N channels up by group, then kOfGroup threads a group
// the threads'. Sums are of differences from the mean of some of the group's values, since those of the
// values themselves would cancel.
template <class T, int N>
__global__ void row_moments_kernel(const T* x, std::int64_t x_stride, Shift shift, Picture shape, Slice slice,
                                   float2* moments) {
  constexpr int kOfGroup = 8, kSamples = 32;
  constexpr int kHeld = 4;           // vectors of a thread that are on their way while the means are made
  extern __shared__ float2 parts[];  // [across, vectors, lanes], then means [groups]
  const auto columns = static_cast<int>(shape.columns), thread = static_cast<int>(threadIdx.x);
  const int lane = thread / slice.by_vectors, vector = thread - lane * slice.vectors;
  const int first_channel = static_cast<int>(blockIdx.y) * slice.channels;
  auto* means = reinterpret_cast<float*>(parts + slice.across * slice.vectors * slice.lanes);
  const T* from = x + blockIdx.z * x_stride +
                  static_cast<std::int64_t>(blockIdx.x) * columns * slice.picture_channels + first_channel;
  const auto pixel = [&](int column) {
    return from + static_cast<std::int64_t>(column) * slice.picture_channels;
  };
  const auto shift_at = [&](int channel) { return shift_of<T>(shift, blockIdx.z, first_channel + channel); };
  const auto vector_at = [&](int column) -> const Vector<T, N>& {
    return *reinterpret_cast<const Vector<T, N>*>(pixel(column) + vector * N);
  };
  Vector<T, N> held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if (const int column = lane + i * slice.lanes; lane < slice.lanes && column < columns)
      held[i] = vector_at(column);

  const int of_group = thread % kOfGroup, round = static_cast<int>(blockDim.x) / kOfGroup;  // groups at once
  for (int first = 0; first < slice.groups; first += round) {
    const int i = first + thread / kOfGroup;
    float some = 0;
    if (i < slice.groups)
#pragma unroll
      for (int sample = of_group; sample < kSamples; sample += kOfGroup) {
        const int of = i * slice.group + sample - sample / slice.by_group * slice.group;
        some += to_float(pixel(sample * columns / kSamples)[of]) + shift_at(of);
      }
    some = sum_over<kOfGroup>(some) / kSamples;
    if (i < slice.groups && of_group == 0) means[i] = some;
  }
  const int first_group = vector * N / slice.by_group;
  const int left_of_first = (first_group + 1) * slice.group - vector * N;  // channels
  float mean[N];
#pragma unroll
  for (int j = 0; j < N; ++j) mean[j] = shift_at(vector * N + j);
  __syncthreads();
  if (lane < slice.lanes) {
    int index = first_group, left = left_of_first;
#pragma unroll
    for (int j = 0; j < N; ++j, --left) {
      if (left == 0) {
        ++index;
        left = slice.group;
      }
      mean[j] = means[index] - mean[j];
    }
    float sum[N] = {};
    float squares[N] = {};
    const auto take = [&](const Vector<T, N>& a) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float difference = to_float(a.values[j]) - mean[j];
        sum[j] += difference;
        squares[j] += difference * difference;
      }
    };
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (lane + i * slice.lanes < columns) take(held[i]);
#pragma unroll 4
    for (int column = lane + kHeld * slice.lanes; column < columns; column += slice.lanes)
      take(vector_at(column));
    float2* to = parts + vector * slice.lanes + lane;
    float2 part = {};
    left = left_of_first;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      part.x += sum[j];
      part.y += squares[j];
      if (--left == 0 || j == N - 1) {
        *to = part;
        to += slice.vectors * slice.lanes;
        part = {};
        left = slice.group;
      }
    }
  }
  __syncthreads();
  const std::int64_t row = blockIdx.z * shape.rows + blockIdx.x;
  for (int first = 0; first < slice.groups; first += round) {
    const int i = first + thread / kOfGroup;
    float2 whole = {};
    if (i < slice.groups)
      for (int v = i * slice.group / N; v * N < (i + 1) * slice.group; ++v) {
        const float2* of = parts + ((i - v * N / slice.by_group) * slice.vectors + v) * slice.lanes;
        for (int j = of_group; j < slice.lanes; j += kOfGroup) {
          whole.x += of[j].x;
          whole.y += of[j].y;
        }
      }
    whole = {sum_over<kOfGroup>(whole.x), sum_over<kOfGroup>(whole.y)};
    const float more = whole.x / static_cast<float>(slice.group * columns);
    if (i < slice.groups && of_group == 0)
      moments[(row * gridDim.y + blockIdx.y) * slice.groups + i] = {means[i] + more,
                                                                    fmaxf(whole.y - whole.x * more, 0)};
  }
}

// A block a group of a picture: one binary tree over the rows.
__global__ void __launch_bounds__(kNormThreads)
    merge_rows_kernel(float2* moments, int rows, float row_elements, float2* whole) {
  const int groups = static_cast<int>(gridDim.x);
  float2* mine = moments + static_cast<std::int64_t>(blockIdx.y) * rows * groups + blockIdx.x;
  for (int stride = 1; stride < rows; stride *= 2) {
    for (int i = 2 * stride * static_cast<int>(threadIdx.x); i + stride < rows;
         i += 2 * stride * kNormThreads) {
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
__global__ void __launch_bounds__(kNormThreads)
    normalise_kernel(const T* __restrict__ x, T* __restrict__ y, Normalise arguments, int group,
                     Divisor by_group) {
  const int channels = static_cast<int>(arguments.shape.channels);
  const int channel = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (channel >= channels) return;
  float scale[N];
  float bias[N];
  float mean[N];
  load<N>(static_cast<const T*>(arguments.weight) + channel, scale);
  load<N>(static_cast<const T*>(arguments.bias) + channel, bias);
  const auto moments_of = [&](int index) -> float2 {
    const auto* whole = reinterpret_cast<const float2*>(arguments.whole) + blockIdx.z * arguments.groups;
    const float variance = whole[index].y + arguments.eps;
    return {whole[index].x,
            sqrtf(variance) / variance};  // NaN, not 0, of an infinite one: overflow stays visible
  };
  int index = channel / by_group;
  int left = (index + 1) * group - channel;  // channels of this group from here on
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
  const std::int64_t margin = arguments.margin * arguments.shape.columns;
  const T* from = x + blockIdx.z * arguments.x_stride + channel;
  T* to = y + blockIdx.z * arguments.y_stride + channel;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
#pragma unroll 4
  for (std::int64_t pixel = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y - margin;
       pixel < pixels + margin; pixel += step) {
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

// Whole groups and vectors, some of which make 128 bytes and more of a pixel where they divide the channels.
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
      constexpr int kLeast = 64;
      const int channels_of_slice = slice_of(channels, group, n), vectors = channels_of_slice / n;
      const int threads = vectors < kLeast ? kLeast : (vectors + 31) / 32 * 32;
      const Slice slice(n, threads, channels, group, channels_of_slice);
      const dim3 grid(static_cast<unsigned>(shape.rows), static_cast<unsigned>(channels / slice.channels),
                      static_cast<unsigned>(shape.pictures));
      kernel<<<grid, threads, slice.shared_bytes(), stream>>>(
          static_cast<const T*>(x), x_stride, shift, shape, slice, reinterpret_cast<float2*>(moments));
    };
    constexpr int kVector = 16 / sizeof(T);
    aligned<kVector, T>(x, x_stride, channels) ? launch(row_moments_kernel<T, kVector>, kVector)
                                               : launch(row_moments_kernel<T, 1>, 1);
  });
}

cudaError_t merge_rows(float* moments, std::int64_t pictures, std::int64_t rows, std::int64_t groups,
                       std::int64_t row_elements, float* whole, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(groups), static_cast<unsigned>(pictures));
  merge_rows_kernel<<<grid, kNormThreads, 0, stream>>>(
      reinterpret_cast<float2*>(moments), static_cast<int>(rows), static_cast<float>(row_elements),
      reinterpret_cast<float2*>(whole));
  return cudaGetLastError();
}

namespace {

template <int N, class T>
bool takes_vectors(const T* x, const T* y, const Normalise& arguments) {
  const std::int64_t channels = arguments.shape.channels;
  return aligned<N, T>(x, arguments.x_stride, channels) && aligned<N, T>(y, arguments.y_stride, channels) &&
         aligned<N, T>(static_cast<const T*>(arguments.weight), 0, channels) &&
         aligned<N, T>(static_cast<const T*>(arguments.bias), 0, channels);
}

}  // namespace

cudaError_t normalise(Type type, const void* x, void* y, const Normalise& arguments, cudaStream_t stream) {
  const Picture& shape = arguments.shape;
  if (shape.pictures * shape.rows == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&](auto kernel, int n) {
      constexpr std::int64_t kMostBlocks = 1024;
      constexpr std::int64_t kPixels = 4;  // of a thread, where there are enough
      const std::int64_t vectors = shape.channels / n;
      const auto wide = static_cast<unsigned>(vectors < kNormThreads ? vectors : kNormThreads);
      const unsigned high = kNormThreads / wide;
      const std::int64_t pixels = (shape.rows + 2 * arguments.margin) * shape.columns;
      const std::int64_t blocks = (pixels + kPixels * high - 1) / (kPixels * high);
      const dim3 grid(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
                      static_cast<unsigned>((vectors + wide - 1) / wide),
                      static_cast<unsigned>(shape.pictures));
      const int group = static_cast<int>(shape.channels / arguments.groups);
      kernel<<<grid, dim3(wide, high), 0, stream>>>(static_cast<const T*>(x), static_cast<T*>(y), arguments,
                                                    group, Divisor(group));
    };
    constexpr int kVector = 16 / sizeof(T);
    const bool vectors =
        takes_vectors<kVector>(static_cast<const T*>(x), static_cast<const T*>(y), arguments);
    if (arguments.silu)
      vectors ? launch(normalise_kernel<T, kVector, true>, kVector) : launch(normalise_kernel<T, 1, true>, 1);
    else
      vectors ? launch(normalise_kernel<T, kVector, false>, kVector)
              : launch(normalise_kernel<T, 1, false>, 1);
  });
}

}  // namespace xdit::cuda
