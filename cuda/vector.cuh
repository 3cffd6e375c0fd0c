#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "cuda/kernels.h"

/// What the kernels share: 16-byte vectors of T in float32.
namespace xdit::cuda {

/// N neighbouring elements, moved at once; `kPacked` says that they may lie at any address.
template <class T, int N, bool kPacked = false>
struct alignas(kPacked ? sizeof(T) : sizeof(T) * N) Vector {
  T values[N];
};

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(__half x) {
  return __half2float(x);
}
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
template <class T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

template <int N, bool kPacked, class T>
__device__ inline void to_floats(const Vector<T, N, kPacked>& from, float (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(from.values[i]);
}
template <class T, bool kPacked = false, int N>
__device__ inline Vector<T, N, kPacked> rounded(const float (&from)[N]) {
  Vector<T, N, kPacked> to;
#pragma unroll
  for (int i = 0; i < N; ++i) to.values[i] = from_float<T>(from[i]);
  return to;
}

template <int N, bool kPacked = false, class T>
__device__ inline void load(const T* from, float (&to)[N]) {
  const auto vector = *reinterpret_cast<const Vector<T, N, kPacked>*>(from);
  to_floats(vector, to);
}

template <int N, bool kPacked = false, class T>
__device__ inline void store(T* to, const float (&from)[N]) {
  *reinterpret_cast<Vector<T, N, kPacked>*>(to) = rounded<T, kPacked>(from);
}

/// Calls f with a T of the type: f(float{}), f(__half{}), f(__nv_bfloat16{}).
template <class F>
cudaError_t dispatch(Type type, F&& f) {
  switch (type) {
    case Type::kF32:
      f(float{});
      break;
    case Type::kF16:
      f(__half{});
      break;
    case Type::kBF16:
      f(__nv_bfloat16{});
      break;
  }
  return cudaGetLastError();
}

/// Whether vectors of N elements of T can be read at p and at every row behind it.
template <int N, class T>
inline bool aligned(const void* p, std::int64_t stride, std::int64_t width) {
  return reinterpret_cast<std::uintptr_t>(p) % (N * sizeof(T)) == 0 && stride % N == 0 && width % N == 0;
}

}  // namespace xdit::cuda
