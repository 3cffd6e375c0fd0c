#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

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

/// One of 3 x 3 pixels with a bias, and the rows and columns of its result.
struct ExpectedConvolution {
  std::int64_t inputs = 0, outputs = 0, rows = 0, columns = 0;
};

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
  /// Of pictures in float32 on `device`: where these go by plans that take long to build (40 ms), a thread
  /// begins to, and the first convolution waits for it. Not while a kernel on the GPU may wait for another
  /// rank: what is built is loaded there, which waits for such a kernel and makes others wait.
  void expect(const std::vector<ExpectedConvolution>& convolutions, at::Device device);
  [[nodiscard]] bool tf32() const { return tf32_; }
  [[nodiscard]] std::size_t count() const { return plans_.built.size(); }
  /// The same of pictures on a GPU by a plan, in float32 of factors in float16; undefined where there is
  /// none.
  [[nodiscard]] at::Tensor by_plan(const at::Tensor& x, const Convolution& layer);

 private:
  /// What has been built.
  struct Plans {
    std::map<cudnn::Shape, std::string> chosen;  ///< names, or ""
    std::map<std::pair<cudnn::Shape, cudnn::Extent>, std::unique_ptr<cudnn::Plan>> built;
    /// The plan that takes every extent, or "".
    const std::string& choose(const cudnn::Shape& shape);
  };
  void take_expected();
  /// Plans of wider results for those of the shapes that have any.
  [[nodiscard]] static Plans build(const std::vector<std::pair<cudnn::Shape, cudnn::Extent>>& wider);
  /// That one for this extent, or one of the same bits that is faster.
  [[nodiscard]] static std::unique_ptr<cudnn::Plan> plan_of(const cudnn::Shape& shape,
                                                            const cudnn::Extent& extent,
                                                            const std::string& name,
                                                            const cudnn::Arguments& arguments);

  bool tf32_;
  Plans plans_;
  std::future<Plans> expected_;
};

/// The product of all windows of x with the weights, some rows at a time; shapes as above.
/// `tf32`: on a GPU, of factors rounded to TF32.
[[nodiscard]] at::Tensor convolution_by_windows(const at::Tensor& x, const Convolution& layer,
                                                bool tf32 = false);

}  // namespace xdit::nn
