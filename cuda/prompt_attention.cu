#include "cuda/prompt_attention.h"

#include <type_traits>

#include "cuda/vector.cuh"

// A warp takes 16 queries through both products on tensor cores (mma.m16n8k16): their scores with all keys
// stay in registers, so that softmax is one pass. Channels are dealt out so that a thread moves 16 bytes at
// once. Who holds what of an operand: PTX ISA, "Matrix Fragments for mma.m16n8k16".
namespace xdit::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kQueries = 16;                              // of a warp
constexpr int kKeys = static_cast<int>(kMostPromptKeys);  // those that are not there weigh nothing
constexpr int kScoreTiles = kKeys / 8, kKeySteps = kKeys / 16;
constexpr int kChunk = 32;  // channels, 8 for each of the four threads that share a row

template <class T>
__device__ void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<T, __half>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 x 8, transposed; thread i gives the address of row i % 8 of matrix i / 8.
__device__ void load_transposed(unsigned (&to)[4], const void* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address));
}

template <class T>
__device__ unsigned pair(float low, float high) {
  const float both[2] = {low, high};
  const Vector<T, 2> result = rounded<T>(both);
  return *reinterpret_cast<const unsigned*>(&result);
}

__device__ float power_of_2(float x) {
  float y = 0;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Of the four threads that share a row.
template <class F>
__device__ float over_row(float x, F&& f) {
  x = f(x, __shfl_xor_sync(~0U, x, 1));
  return f(x, __shfl_xor_sync(~0U, x, 2));
}

// A head's rows: 8 channels from `channel` on, zeros beyond the last channel and the last row.
template <class T>
struct HeadRows {
  T* first;
  std::int64_t stride;
  int rows, width;
  __device__ HeadRows(const PromptAttention::Operand& of, std::int64_t count, std::int64_t channels)
      : first(static_cast<T*>(of.data) + blockIdx.z * of.picture_stride + blockIdx.y * of.head_stride),
        stride(of.token_stride),
        rows(static_cast<int>(count)),
        width(static_cast<int>(channels)) {}
  __device__ bool has(int row, int channel) const { return row < rows && channel < width; }
  __device__ uint4& at(int row, int channel) const {
    return *reinterpret_cast<uint4*>(first + row * stride + channel);
  }
  __device__ uint4 load(int row, int channel) const { return has(row, channel) ? at(row, channel) : uint4{}; }
};

// Of shared memory, in elements. Keys' rows begin an odd multiple of 64 bytes apart, values' one of 16: no
// two reads at once meet in a bank.
template <int kChunks>
struct Layout {
  static constexpr int kKeyStride = kChunk * (kChunks | 1), kValueStride = kChunk * kChunks + 8;
  static constexpr int kValues = kKeys * kKeyStride, kAll = kValues + kKeys * kValueStride;
};

template <class T, int kChunks>
__global__ void __launch_bounds__(kThreads, kChunks <= 2 ? 3 : 1)
    prompt_attention_kernel(PromptAttention of) {
  constexpr int kKeyStride = Layout<kChunks>::kKeyStride, kValueStride = Layout<kChunks>::kValueStride;
  extern __shared__ uint4 shared[];
  T* const keys = reinterpret_cast<T*>(shared);
  T* const values = keys + Layout<kChunks>::kValues;

  const HeadRows<T> q(of.q, of.tokens, of.head_dim), k(of.k, of.keys, of.head_dim),
      v(of.v, of.keys, of.head_dim);
  const int lane = static_cast<int>(threadIdx.x) % 32, group = lane / 4, part = lane % 4;
  const int first = (static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32) * kQueries;
  uint4 queries[kChunks][2];
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      queries[c][half] = q.load(first + group + 8 * half, kChunk * c + 8 * part);

  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kChunks * 4; i += kThreads) {
    const int key = i / (kChunks * 4), eight = i % (kChunks * 4);
    *reinterpret_cast<uint4*>(keys + key * kKeyStride + 8 * eight) = k.load(key, 8 * eight);
    // Where a result's thread finds its 8 channels in four tiles.
    const uint4 value = v.load(key, 8 * eight);
    auto* const to =
        reinterpret_cast<unsigned*>(values + key * kValueStride + eight / 4 * kChunk + eight % 4 * 2);
    to[0] = value.x;
    to[4] = value.y;
    to[8] = value.z;
    to[12] = value.w;
  }
  __syncthreads();

  float scores[kScoreTiles][4] = {};
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const uint4 &low = queries[c][0], &high = queries[c][1];
    const unsigned a[2][4] = {{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}};
#pragma unroll
    for (int tile = 0; tile < kScoreTiles; ++tile) {
      const uint4 b =
          *reinterpret_cast<const uint4*>(keys + (8 * tile + group) * kKeyStride + kChunk * c + 8 * part);
      multiply_add<T>(scores[tile], a[0], b.x, b.y);
      multiply_add<T>(scores[tile], a[1], b.z, b.w);
    }
  }

  const float scale = of.scale * 1.44269504F;  // of powers of 2
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = -INFINITY;
#pragma unroll
    for (int tile = 0; tile < kScoreTiles; ++tile)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float& score = scores[tile][2 * half + j];
        if (8 * tile + 8 > of.keys && 8 * tile + 2 * part + j >= of.keys) score = -INFINITY;
        largest = fmaxf(largest, score);
      }
    largest = over_row(largest, [](float a, float b) { return fmaxf(a, b); });
    float sum = 0;
#pragma unroll
    for (int tile = 0; tile < kScoreTiles; ++tile)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float& score = scores[tile][2 * half + j];
        score = power_of_2(fmaf(scale, score, -scale * largest));
        sum += score;
      }
    inverse[half] = 1 / over_row(sum, [](float a, float b) { return a + b; });
  }

  float results[4 * kChunks][4] = {};
#pragma unroll
  for (int step = 0; step < kKeySteps; ++step) {
    const float(&left)[4] = scores[2 * step], (&right)[4] = scores[2 * step + 1];
    const unsigned a[4] = {pair<T>(left[0], left[1]), pair<T>(left[2], left[3]), pair<T>(right[0], right[1]),
                           pair<T>(right[2], right[3])};
#pragma unroll
    for (int tile = 0; tile < 4 * kChunks; tile += 2) {
      unsigned b[4];  // the step's first and last 8 keys of this tile, then of the next
      load_transposed(b, values + (16 * step + lane % 16) * kValueStride + 8 * (tile + lane / 16));
      multiply_add<T>(results[tile], a, b[0], b[1]);
      multiply_add<T>(results[tile + 1], a, b[2], b[3]);
    }
  }

  const HeadRows<T> out(of.out, of.tokens, of.head_dim);
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + group + 8 * half, channel = kChunk * c + 8 * part;
      if (!out.has(row, channel)) continue;
      const auto two = [&](int tile) {
        const float(&r)[4] = results[4 * c + tile];
        return pair<T>(r[2 * half] * inverse[half], r[2 * half + 1] * inverse[half]);
      };
      out.at(row, channel) = {two(0), two(1), two(2), two(3)};
    }
}

template <class T, int kChunks>
cudaError_t launch(const PromptAttention& arguments, cudaStream_t stream) {
  constexpr int kBytes = Layout<kChunks>::kAll * static_cast<int>(sizeof(T));
  const auto kernel = prompt_attention_kernel<T, kChunks>;
  constexpr int kAlways = 48 * 1024;
  if constexpr (kBytes > kAlways)
    if (const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
        error != cudaSuccess)
      return error;
  constexpr int kRows = kWarps * kQueries;
  const dim3 grid(static_cast<unsigned>((arguments.tokens + kRows - 1) / kRows),
                  static_cast<unsigned>(arguments.heads), static_cast<unsigned>(arguments.pictures));
  kernel<<<grid, kThreads, kBytes, stream>>>(arguments);
  return cudaGetLastError();
}

template <class T, int kChunks = 1>
cudaError_t launch_for_width(const PromptAttention& arguments, cudaStream_t stream) {
  if (arguments.head_dim <= kChunks * kChunk) return launch<T, kChunks>(arguments, stream);
  if constexpr (kChunks * kChunk < kWidestPromptHead)
    return launch_for_width<T, kChunks + 1>(arguments, stream);
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t prompt_attention(Type type, const PromptAttention& arguments, cudaStream_t stream) {
  if (arguments.keys < 1 || arguments.keys > kMostPromptKeys) return cudaErrorInvalidValue;
  if (arguments.tokens == 0 || arguments.heads == 0 || arguments.pictures == 0) return cudaSuccess;
  switch (type) {
    case Type::kF16:
      return launch_for_width<__half>(arguments, stream);
    case Type::kBF16:
      return launch_for_width<__nv_bfloat16>(arguments, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace xdit::cuda
