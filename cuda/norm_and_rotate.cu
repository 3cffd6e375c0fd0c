#include "cuda/kernels.h"
#include "cuda/vector.cuh"

namespace xdit::cuda {
namespace {

constexpr int kWarps = 8;

// A warp a head of a token: a lane holds N neighbouring channels (N even, so rotation pairs stay together)
// and repeats every 32 N channels.
template <class T, int N, bool kPacked>
__global__ void __launch_bounds__(32 * kWarps) norm_and_rotate_kernel(NormAndRotate arguments) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t token = blockIdx.x;
  const int heads = static_cast<int>(arguments.heads);
  const int dim = static_cast<int>(arguments.head_dim);
  const T* from = static_cast<const T*>(arguments.qkv) + token * arguments.token_stride;
  const float* rotary = arguments.rotary + token * dim;
  for (int row = static_cast<int>(threadIdx.x / 32); row < 2 * heads; row += kWarps) {
    const bool query = row < heads;
    const T* x = from + static_cast<std::int64_t>(row) * dim;
    T* y = static_cast<T*>(query ? arguments.q : arguments.k) + (token * heads + row % heads) * dim;
    float a[N];
    float squares = 0;
    for (int i = lane * N; i < dim; i += 32 * N) {
      load<N, kPacked>(x + i, a);
#pragma unroll
      for (int j = 0; j < N; ++j) squares += a[j] * a[j];
    }
    const float inverse = rsqrtf(warp_sum(squares) / static_cast<float>(dim) + arguments.eps);
    const T* norm = static_cast<const T*>(query ? arguments.query_norm : arguments.key_norm);
    float weight[N];
    float turn[N];
    for (int i = lane * N; i < dim; i += 32 * N) {
      load<N, kPacked>(x + i, a);
      load<N, kPacked>(norm + i, weight);
      load<N, kPacked>(rotary + i, turn);
#pragma unroll
      for (int j = 0; j < N; j += 2) {
        const float real = a[j] * inverse * weight[j];
        const float imaginary = a[j + 1] * inverse * weight[j + 1];
        a[j] = real * turn[j] - imaginary * turn[j + 1];
        a[j + 1] = real * turn[j + 1] + imaginary * turn[j];
      }
      store<N, kPacked>(y + i, a);
    }
  }
}

}  // namespace

cudaError_t norm_and_rotate(Type type, const NormAndRotate& arguments, cudaStream_t stream) {
  if (arguments.tokens == 0) return cudaSuccess;
  return dispatch(type, [&]<class T>(T) {
    const auto launch = [&](auto kernel) {
      kernel<<<static_cast<unsigned>(arguments.tokens), 32 * kWarps, 0, stream>>>(arguments);
    };
    const auto fits = [&]<int N>() {
      const std::int64_t dim = arguments.head_dim;
      bool fit = aligned<N, T>(arguments.qkv, arguments.token_stride, dim) &&
                 aligned<N, float>(arguments.rotary, 0, dim);
      for (const void* p : {arguments.query_norm, arguments.key_norm, static_cast<const void*>(arguments.q),
                            static_cast<const void*>(arguments.k)})
        fit = fit && aligned<N, T>(p, 0, dim);
      return fit;
    };
    fits.template operator()<4>() ? launch(norm_and_rotate_kernel<T, 4, false>)
                                  : launch(norm_and_rotate_kernel<T, 2, true>);
  });
}

}  // namespace xdit::cuda
