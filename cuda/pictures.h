#pragma once
#include "cuda/kernels.h"

/// Launchers of the device code for pictures, like those of cuda/kernels.h.
namespace xdit::cuda {

/// Pictures [pictures, rows, columns, channels], each packed, at a stride of their own.
struct Picture {
  std::int64_t pictures;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t channels;
};
/// What is added to pictures first, unrounded: [pictures, channels] at picture_stride, or null for nothing.
struct Shift {
  const void* values;
  std::int64_t picture_stride;
};
/// moments [pictures, rows, groups, 2]: of each row's groups of neighbouring channels of x + shift the mean
/// and the sum of squared differences from it. Their bits depend neither on the number of rows nor on a row's
/// place. At most 512 channels a group.
cudaError_t row_moments(Type type, const void* x, std::int64_t x_stride, const Shift& shift,
                        const Picture& shape, std::int64_t groups, float* moments, cudaStream_t stream);
/// whole [pictures, groups, 2]: mean and variance of all rows, merged in one binary tree over the rows, which
/// overwrites them.
cudaError_t merge_rows(float* moments, std::int64_t pictures, std::int64_t rows, std::int64_t groups,
                       std::int64_t row_elements, float* whole, cudaStream_t stream);
struct Normalise {
  Picture shape;
  std::int64_t x_stride;
  std::int64_t y_stride;
  Shift shift;
  const float* whole;  ///< [pictures, groups, 2]: mean and variance
  std::int64_t groups;
  const void* weight;  ///< [channels]
  const void* bias;    ///< [channels]
  float eps;
  bool silu;
  std::int64_t margin = 0;  ///< rows above and below y that become zeros
};
/// y = (x + shift - mean) / sqrt(variance + eps) weight + bias, then SiLU if asked for. x and y do not
/// overlap.
cudaError_t normalise(Type type, const void* x, void* y, const Normalise& arguments, cudaStream_t stream);
struct Window {
  Picture shape;  ///< y's, packed
  std::int64_t x_stride;
  std::int64_t x_columns;
  std::int64_t scale;  ///< x is made so many times as large, by repeating pixels
  std::int64_t first;  ///< row of that
  std::int64_t end;    ///< rows before 0 and from here on are zeros
};
/// y = rows from `first` on of the larger x.
cudaError_t window(Type type, const void* x, void* y, const Window& arguments, cudaStream_t stream);

}  // namespace xdit::cuda
