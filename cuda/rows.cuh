#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/vector.cuh"

/// Kernels with a block a row.
namespace xdit::cuda {

/// The block's row of `width` elements in vectors of N: kHeld of them a thread in registers, or, where kHeld
/// is 0, read from memory each time.
template <class T, int N, int kHeld>
class Row {
 public:
  __device__ Row(const T* from, int width) : from_(from), width_(width) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (const int column = column_of(i); column < width)
        held_[i] = *reinterpret_cast<const Vector<T, N>*>(from + column);
  }

  /// f(column, values, others) for each of the thread's vectors of this row and `other`. What f makes of
  /// values, as T rounds it, is the row from then on, also at `to`, which may be where the row came from.
  template <class F>
  __device__ void update(T* to, const Row& other, F&& f) {
    float values[N], others[N];
    if constexpr (kHeld == 0) {
      for (int column = column_of(0); column < width_; column += static_cast<int>(blockDim.x) * N) {
        load<N>(from_ + column, values);
        load<N>(other.from_ + column, others);
        f(column, values, others);
        store<N>(to + column, values);
      }
      from_ = to;
    } else {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        const int column = column_of(i);
        if (column >= width_) break;
        to_floats(held_[i], values);
        to_floats(other.held_[i], others);
        f(column, values, others);
        held_[i] = rounded<T>(values);
        *reinterpret_cast<Vector<T, N>*>(to + column) = held_[i];
      }
    }
  }

  /// f(column, values) for each of the thread's vectors: float (&values)[N], which f may change.
  template <class F>
  __device__ void each(F&& f) const {
    float values[N];
    if constexpr (kHeld == 0) {
      for (int column = column_of(0); column < width_; column += static_cast<int>(blockDim.x) * N) {
        load<N>(from_ + column, values);
        f(column, values);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        const int column = column_of(i);
        if (column >= width_) break;
        to_floats(held_[i], values);
        f(column, values);
      }
    }
  }

 private:
  static __device__ int column_of(int i) {
    return static_cast<int>(i * blockDim.x + threadIdx.x) * N;
  }

  const T* from_;
  int width_;
  Vector<T, N> held_[kHeld > 0 ? kHeld : 1];
};

constexpr int kRowThreads = 512;  // of a block, at most

/// Calls launch(kHeld, threads) with a std::integral_constant for a row of `width` in vectors of `n`: few
/// threads with several vectors each, so that a multiprocessor has many rows on their way.
template <class F>
void with_row_shape(std::int64_t width, int n, F&& launch) {
  const std::int64_t vectors = (width + n - 1) / n;
  const auto threads = [&](int held) {
    return static_cast<int>(((vectors + held - 1) / held + 31) / 32 * 32);
  };
  if (vectors <= 128)
    launch(std::integral_constant<int, 1>{}, threads(1));
  else if (vectors <= 320)
    launch(std::integral_constant<int, 2>{}, threads(2));
  else if (vectors <= 4 * kRowThreads)
    launch(std::integral_constant<int, 4>{}, threads(4));
  else
    launch(std::integral_constant<int, 0>{}, kRowThreads);
}

}  // namespace xdit::cuda
