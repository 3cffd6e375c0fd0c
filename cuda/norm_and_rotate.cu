#include "cuda/kernels.h"
#include "cuda/sums.cuh"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

constexpr int kThreads = 256;

// N channels of a head: normed, weighted, rotated in pairs.
template <int N>
__device__ void rotate(float (&a)[N], float inverse, const float (&weight)[N], const float (&turn)[N]) {
#pragma unroll
  for (int j = 0; j < N; j += 2) {
    const float real = a[j] * inverse * weight[j];
    const float imaginary = a[j + 1] * inverse * weight[j + 1];
    a[j] = real * turn[j] - imaginary * turn[j + 1];
    a[j + 1] = real * turn[j + 1] + imaginary * turn[j];
  }
}

// Where the heads [3, heads] of a token go; those of its values perhaps nowhere.
template <class T>
class Destination {
 public:
  __device__ Destination(const NormAndRotate& arguments, std::int64_t token)
      : heads_(static_cast<int>(arguments.heads)), dim_(static_cast<int>(arguments.head_dim)) {
    const std::int64_t elements = arguments.heads * arguments.head_dim;
    q_ = static_cast<T*>(arguments.q) + token * elements;
    const bool second = token >= arguments.keys[0].tokens;
    const NormAndRotate::Keys& keys = second ? arguments.keys[1] : arguments.keys[0];
    const std::int64_t at = (second ? token - arguments.keys[0].tokens : token) * elements;
    k_ = static_cast<T*>(keys.k) + at;
    if (keys.v != nullptr) v_ = static_cast<T*>(keys.v) + at;
  }
  __device__ int rows() const { return (v_ != nullptr ? 3 : 2) * heads_; }
  __device__ T* operator[](int row) const {
    return (row < heads_ ? q_ : row < 2 * heads_ ? k_ : v_) + row % heads_ * dim_;
  }

 private:
  int heads_, dim_;
  T *q_, *k_, *v_ = nullptr;
};

// A block a token, kLanes lanes a head of 16-byte vectors. A token's rotation stays in registers, and kAtOnce
// heads are on their way at a time.
template <class T, int N, int kLanes>
__global__ void __launch_bounds__(kThreads) heads_kernel(NormAndRotate arguments) {
  constexpr int kTeams = kThreads / kLanes;
  constexpr int kAtOnce = 3;
  constexpr int kDim = N * kLanes;
  const int heads = static_cast<int>(arguments.heads);
  const int team = static_cast<int>(threadIdx.x) / kLanes;
  const int channel = static_cast<int>(threadIdx.x) % kLanes * N;
  const std::int64_t token = blockIdx.x;
  const T* from = static_cast<const T*>(arguments.qkv) + token * arguments.token_stride + channel;
  float turn[N];
  load<N>(arguments.rotary + token * kDim + channel, turn);
  const Destination<T> to(arguments, token);
  for (int first = 0; first < to.rows(); first += kAtOnce * kTeams) {  // the same for all: they sum together
    Vector<T, N> read[kAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (const int row = first + i * kTeams + team; row < to.rows())
        read[i] = *reinterpret_cast<const Vector<T, N>*>(from + row * kDim);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int row = first + i * kTeams + team;
      const bool query = row < heads;
      float a[N];
      float squares = 0;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        a[j] = to_float(read[i].values[j]);
        squares += a[j] * a[j];
      }
      squares = sum_over<kLanes>(squares);
      if (row >= to.rows()) continue;
      T* const head = to[row] + channel;
      if (row >= 2 * heads) {
        *reinterpret_cast<Vector<T, N>*>(head) = read[i];
        continue;
      }
      float weight[N];
      load<N>(static_cast<const T*>(query ? arguments.query_norm : arguments.key_norm) + channel, weight);
      rotate(a, rsqrtf(squares / kDim + arguments.eps), weight, turn);
      store<N>(head, a);
    }
  }
}

// Heads of any even width: a warp a head of a token; a lane holds N neighbouring channels and repeats every
// 32 N.
template <class T, int N, bool kPacked>
__global__ void __launch_bounds__(kThreads) any_heads_kernel(NormAndRotate arguments) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t token = blockIdx.x;
  const int heads = static_cast<int>(arguments.heads);
  const int dim = static_cast<int>(arguments.head_dim);
  const T* from = static_cast<const T*>(arguments.qkv) + token * arguments.token_stride;
  const float* rotary = arguments.rotary + token * dim;
  const Destination<T> to(arguments, token);
  for (int row = static_cast<int>(threadIdx.x / 32); row < to.rows(); row += kThreads / 32) {
    const bool query = row < heads;
    const T* x = from + static_cast<std::int64_t>(row) * dim;
    T* y = to[row];
    if (row >= 2 * heads) {
      using Elements = Vector<T, N, kPacked>;
      for (int i = lane * N; i < dim; i += 32 * N)
        *reinterpret_cast<Elements*>(y + i) = *reinterpret_cast<const Elements*>(x + i);
      continue;
    }
    float a[N];
    float squares = 0;
    for (int i = lane * N; i < dim; i += 32 * N) {
      load<N, kPacked>(x + i, a);
#pragma unroll
      for (int j = 0; j < N; ++j) squares += a[j] * a[j];
    }
    const float inverse = rsqrtf(sum_over<32>(squares) / static_cast<float>(dim) + arguments.eps);
    const T* norm = static_cast<const T*>(query ? arguments.query_norm : arguments.key_norm);
    float weight[N];
    float turn[N];
    for (int i = lane * N; i < dim; i += 32 * N) {
      load<N, kPacked>(x + i, a);
      load<N, kPacked>(norm + i, weight);
      load<N, kPacked>(rotary + i, turn);
      rotate(a, inverse, weight, turn);
      store<N, kPacked>(y + i, a);
    }
  }
}

}  // namespace

cudaError_t norm_and_rotate(Type type, const NormAndRotate& arguments, cudaStream_t stream) {
  const std::int64_t tokens = arguments.keys[0].tokens + arguments.keys[1].tokens;
  if (tokens == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&](auto kernel) {
      kernel<<<static_cast<unsigned>(tokens), kThreads, 0, stream>>>(arguments);
    };
    const auto fits = [&]<int N>() {
      const std::int64_t dim = arguments.head_dim;
      bool fit = aligned<N, T>(arguments.qkv, arguments.token_stride, dim) &&
                 aligned<N, float>(arguments.rotary, 0, dim);
      for (const void* p : {arguments.query_norm, arguments.key_norm, static_cast<const void*>(arguments.q)})
        fit = fit && aligned<N, T>(p, 0, dim);
      for (const auto& [k, v, of] : arguments.keys)
        fit = fit && aligned<N, T>(k, 0, dim) && aligned<N, T>(v, 0, dim);
      return fit;
    };
    constexpr int kVector = 16 / sizeof(T);
    const std::int64_t lanes = fits.template operator()<kVector>() ? arguments.head_dim / kVector : 0;
    if (lanes == 8)
      launch(heads_kernel<T, kVector, 8>);
    else if (lanes == 16)
      launch(heads_kernel<T, kVector, 16>);
    else if (lanes == 32)
      launch(heads_kernel<T, kVector, 32>);
    else
      fits.template operator()<4>() ? launch(any_heads_kernel<T, 4, false>)
                                    : launch(any_heads_kernel<T, 2, true>);
  });
}

}  // namespace xdit::cuda
