#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "nn/cudnn_convolution.h"
#include "nn/weights.h"

namespace xdit::nn {

/// A convolution: weight [O, I, K, K], on a GPU channels-last unless it comes and goes, bias [O] or none.
struct Convolution {
  at::Tensor weight;
  at::Tensor bias;
  std::int64_t stride = 1;
};
[[nodiscard]] Convolution read_convolution(const Weights& weights, const std::string& name,
                                           std::int64_t stride = 1);

/// Runs convolutions so that an output row's bits do not depend on how many rows are computed beside it: in
/// tiles on the CPU; on a GPU by plans of cuDNN's that give all heights and numbers of pictures the same
/// bits, by a product with the windows of the picture where there are none. Keeps what it has built.
class Convolutions {
 public:
  /// `tf32`: those in float32 may round their factors to 11 bits: to TF32, or to float16 after a scaling,
  /// which takes pictures up to 2 million.
  explicit Convolutions(bool tf32 = false) : tf32_(tf32) {}
  /// [B, O, h, w] of x [B, I, (h - 1) stride + K, W]; columns are padded with zeros by K / 2, so w is W /
  /// stride rounded up.
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, const Convolution& layer);
  /// y [B, O, h, W] += the same of a kernel of one pixel.
  void onto(const at::Tensor& y, const at::Tensor& x, const Convolution& layer);
  [[nodiscard]] bool tf32() const { return tf32_; }
  [[nodiscard]] std::size_t count() const { return built_.size(); }
  /// The same of pictures on a GPU by a plan, in float32 of factors in float16; undefined where there is
  /// none.
  [[nodiscard]] at::Tensor by_plan(const at::Tensor& x, const Convolution& layer);

 private:
  /// The plan that takes every extent, or "".
  [[nodiscard]] const std::string& choose(const cudnn::Shape& shape);
  /// That one for this extent, or one of the same bits that is faster.
  [[nodiscard]] static std::unique_ptr<cudnn::Plan> plan_of(const cudnn::Shape& shape,
                                                            const cudnn::Extent& extent,
                                                            const std::string& name,
                                                            const cudnn::Arguments& arguments);

  bool tf32_;
  std::map<cudnn::Shape, std::string> chosen_;  ///< names, or ""
  std::map<std::pair<cudnn::Shape, cudnn::Extent>, std::unique_ptr<cudnn::Plan>> built_;
};

/// The product of all windows of x with the weights, some rows at a time; shapes as above.
/// `tf32`: on a GPU, of factors rounded to TF32.
[[nodiscard]] at::Tensor convolution_by_windows(const at::Tensor& x, const Convolution& layer,
                                                bool tf32 = false);

}  // namespace xdit::nn
