#include "cuda/group_norm.cuh"

#include <cooperative_groups.h>

#include <algorithm>

namespace xdit::cuda {
namespace {

// A block a row of a slice.
template <class T, int N>
__global__ void row_moments_kernel(const T* x, std::int64_t x_stride, Shift shift, Picture shape, int group,
                                   int slice, float2* moments) {
  extern __shared__ float2 sums[];
  const auto columns = static_cast<int>(shape.columns), channels = static_cast<int>(shape.channels);
  const int first_channel = static_cast<int>(blockIdx.y) * slice;
  const std::int64_t row = blockIdx.z * shape.rows + blockIdx.x;
  row_moments_of<T, N>(
      x + blockIdx.z * x_stride + static_cast<std::int64_t>(blockIdx.x) * columns * channels + first_channel,
      shift, {columns, channels, group, slice, blockIdx.z, first_channel}, /*here=*/true, sums,
      moments + (row * gridDim.y + blockIdx.y) * (slice / group));
}

// A block a group of a picture.
__global__ void __launch_bounds__(kNormThreads)
    merge_rows_kernel(float2* moments, int rows, float row_elements, float2* whole) {
  const int groups = static_cast<int>(gridDim.x);
  float2* mine = moments + static_cast<std::int64_t>(blockIdx.y) * rows * groups + blockIdx.x;
  const float2 of = merge_rows_of(mine, groups, rows, row_elements, static_cast<int>(threadIdx.x),
                                  kNormThreads, [] { __syncthreads(); });
  if (threadIdx.x == 0) whole[blockIdx.y * groups + blockIdx.x] = of;
}

// Pixels in blockIdx.x and threadIdx.y, channels in blockIdx.y and threadIdx.x; several pixels a thread,
// which share what the channels need.
template <class T, int N, bool kSilu>
__global__ void __launch_bounds__(kNormThreads)
    normalise_kernel(const T* __restrict__ x, T* __restrict__ y, Normalise arguments) {
  const int channel = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (channel >= arguments.shape.channels) return;
  normalise_pixels<T, N, kSilu>(
      x, y, arguments, blockIdx.z, channel,
      reinterpret_cast<const float2*>(arguments.whole) + blockIdx.z * arguments.groups,
      static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y,
      arguments.shape.rows * arguments.shape.columns, static_cast<std::int64_t>(gridDim.x) * blockDim.y);
}

constexpr int kTeams = 2;  // of kNormThreads, each with a row

// Everything of a slice of a picture by one cluster: its blocks have neighbouring rows, read them twice (the
// second time from L2) and tell each other their moments in between.
template <class T, int N, bool kSilu>
__global__ void __launch_bounds__(kTeams* kNormThreads)
    group_norm_kernel(const T* __restrict__ x, T* __restrict__ y, Normalise arguments, int slice) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ float2 memory[];
  const auto cluster = cooperative_groups::this_cluster();
  const auto channels = static_cast<int>(arguments.shape.channels),
             columns = static_cast<int>(arguments.shape.columns),
             rows = static_cast<int>(arguments.shape.rows);
  const int group = channels / static_cast<int>(arguments.groups), groups = slice / group;
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  const int rows_a_block = (rows + blocks - 1) / blocks;
  const int first_row = min(rows, block * rows_a_block), end_row = min(rows, first_row + rows_a_block);
  const int first_channel = static_cast<int>(blockIdx.y) * slice;
  const int team = static_cast<int>(threadIdx.y);
  const int thread = team * kNormThreads + static_cast<int>(threadIdx.x);
  constexpr int kThreads = kTeams * kNormThreads;

  float2* mine = memory;                       // [rows a block, groups]
  float2* all = mine + rows_a_block * groups;  // [groups, rows]
  float2* whole = all + groups * rows;         // [groups]
  float2* sums = whole + groups + team * row_moments_floats(kNormThreads, slice / N, slice, group) / 2;
  for (int i = 0; i < rows_a_block; i += kTeams) {
    const int row = first_row + i + team;
    row_moments_of<T, N>(x + blockIdx.z * arguments.x_stride +
                             static_cast<std::int64_t>(row) * columns * channels + first_channel,
                         arguments.shift, {columns, channels, group, slice, blockIdx.z, first_channel},
                         row < end_row, sums, mine + (i + team) * groups);
  }
  cluster.sync();
  for (int i = thread; i < rows * groups; i += kThreads) {
    const int row = i / groups;
    const int of = row / rows_a_block;
    all[i % groups * rows + row] =
        *cluster.map_shared_rank(mine + (row - of * rows_a_block) * groups + i % groups, of);
  }
  cluster.sync();  // none leaves before the others have read
  for (int i = thread / 32; i < groups; i += kThreads / 32) {
    const float2 of = merge_rows_of(all + i * rows, 1, rows, static_cast<float>(group * columns), thread % 32,
                                    32, [] { __syncwarp(); });
    if (thread % 32 == 0) whole[i] = of;
  }
  __syncthreads();
  const int vectors = slice / N, lanes = kThreads / vectors;
  if (thread / vectors >= lanes) return;
  const std::int64_t margin = arguments.margin * columns;
  normalise_pixels<T, N, kSilu>(
      x, y, arguments, blockIdx.z, first_channel + thread % vectors * N, whole - blockIdx.y * groups,
      (block == 0 ? -margin : static_cast<std::int64_t>(first_row) * columns) + thread / vectors,
      static_cast<std::int64_t>(end_row) * columns + (block == blocks - 1 ? margin : 0), lanes);
#endif
}

// Blocks of a cluster: up to two rows each while that makes more, as many as this GPU takes.
template <class Kernel>
cudaError_t cluster_of(Kernel kernel, cudaLaunchConfig_t& launch, std::int64_t rows, bool& fits) {
  constexpr int kPortable = 8, kMost = 16;
  int blocks = 1;
  while (blocks < kMost && blocks * kTeams < rows) blocks *= 2;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  for (fits = false; error == cudaSuccess && !fits; blocks = kPortable) {
    launch.attrs->val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
    launch.gridDim.x = static_cast<unsigned>(blocks);
    int clusters = 0;
    error = cudaOccupancyMaxActiveClusters(&clusters, kernel, &launch);
    fits = clusters > 0;
    if (blocks <= kPortable) break;
  }
  return error;
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
      const int threads = vectors < kNormThreads ? kNormThreads : (vectors + 31) / 32 * 32;
      const dim3 grid(static_cast<unsigned>(shape.rows), static_cast<unsigned>(channels / slice),
                      static_cast<unsigned>(shape.pictures));
      const std::size_t shared = row_moments_floats(threads, vectors, slice, group) * sizeof(float);
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
      const std::int64_t blocks = (shape.rows * shape.columns + kPixels * high - 1) / (kPixels * high);
      const dim3 grid(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
                      static_cast<unsigned>((vectors + wide - 1) / wide),
                      static_cast<unsigned>(shape.pictures));
      kernel<<<grid, dim3(wide, high), 0, stream>>>(static_cast<const T*>(x), static_cast<T*>(y), arguments);
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

cudaError_t group_norm(Type type, const void* x, void* y, const Normalise& arguments, bool& taken,
                       cudaStream_t stream) {
  constexpr std::int64_t kMostBytes = 1U << 18U;  // of a block's rows: those of all that run lie in L2
  constexpr std::size_t kMostShared = 100'000;
  taken = false;
  const Picture& shape = arguments.shape;
  int device = 0, clusters = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, device) != cudaSuccess)
    return cudaGetLastError();
  if (clusters == 0 || shape.pictures * shape.rows == 0) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  const cudaError_t last = dispatch(type, [&]<class T>(T) {
    constexpr int kVector = 16 / sizeof(T);
    const auto channels = static_cast<int>(shape.channels);
    const int group = channels / static_cast<int>(arguments.groups);
    const int slice = slice_of(channels, group, kVector), groups = slice / group;
    const auto* from = static_cast<const T*>(x);
    auto* to = static_cast<T*>(y);
    if (!takes_vectors<kVector>(from, static_cast<const T*>(to), arguments) || slice / kVector > kNormThreads)
      return;
    const auto kernel =
        arguments.silu ? group_norm_kernel<T, kVector, true> : group_norm_kernel<T, kVector, false>;
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cudaLaunchConfig_t launch{};
    launch.gridDim = {1, static_cast<unsigned>(channels / slice), static_cast<unsigned>(shape.pictures)};
    launch.blockDim = {kNormThreads, kTeams, 1};
    launch.stream = stream;
    launch.attrs = &cluster;
    launch.numAttrs = 1;
    // What the smallest cluster wants.
    const std::int64_t floats = row_moments_floats(kNormThreads, slice / kVector, slice, group);
    launch.dynamicSmemBytes = static_cast<std::size_t>((2 * groups * (2 * shape.rows + 1) + kTeams * floats) *
                                                       static_cast<std::int64_t>(sizeof(float)));
    if (launch.dynamicSmemBytes > kMostShared) return;
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostShared);
    bool fits = false;
    if (error == cudaSuccess) error = cluster_of(kernel, launch, shape.rows, fits);
    const std::int64_t rows_a_block = (shape.rows + launch.gridDim.x - 1) / launch.gridDim.x;
    taken = error == cudaSuccess && fits &&
            rows_a_block * shape.columns * slice * static_cast<std::int64_t>(sizeof(T)) <= kMostBytes;
    if (taken) error = cudaLaunchKernelEx(&launch, kernel, from, to, arguments, slice);
  });
  return error != cudaSuccess ? error : last;
}

}  // namespace xdit::cuda
