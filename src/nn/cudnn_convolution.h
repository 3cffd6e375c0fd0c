#pragma once
#include <ATen/core/Tensor.h>

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

/// cuDNN's convolutions of channels-last pictures, each by a plan that the caller names: LibTorch lets cuDNN
/// choose by the number of rows, and a row's bits follow. A build without CUDA has none.
namespace xdit::nn::cudnn {

/// What is added to the convolution before it is rounded.
enum class Epilogue : std::uint8_t { kNone, kBias, kBiasAndPicture };

/// Rows as they are, columns padded with zeros by kernel / 2.
struct Shape {
  std::int64_t inputs = 0;
  std::int64_t outputs = 0;
  std::int64_t kernel = 0;
  std::int64_t columns = 0;  ///< of the input
  std::int64_t stride = 1;
  at::ScalarType type = at::ScalarType::Undefined;
  Epilogue epilogue = Epilogue::kNone;
  [[nodiscard]] std::int64_t input_rows(std::int64_t rows) const { return (rows - 1) * stride + kernel; }
  [[nodiscard]] std::int64_t output_columns() const { return (columns - 1) / stride + 1; }
  auto operator<=>(const Shape&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14's own fault
};

/// Names of the plans that cuDNN's heuristics list for `rows` output rows on the current GPU, best first: an
/// engine and its knobs, such as "eng62_k24=17_k25=1".
[[nodiscard]] std::vector<std::string> plan_names(const Shape& shape, std::int64_t rows);

/// A convolution to `rows` rows, ready to run on the GPU that it was built on.
class Plan {
 public:
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan();
  /// Null where cuDNN does not support it; `why` says so then.
  [[nodiscard]] static std::unique_ptr<Plan> build(const Shape& shape, std::int64_t rows,
                                                   const std::string& name, std::string* why = nullptr);
  /// y [1, O, rows, w] becomes that of x [1, C, input_rows(rows), W] and weight [O, C, K, K], all
  /// channels-last; bias [O] and picture [1, O, rows, w] if the shape's epilogue wants them.
  void operator()(const at::Tensor& y, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& picture = {}) const;
  [[nodiscard]] std::int64_t workspace_bytes() const;

 private:
  struct Built;
  explicit Plan(std::unique_ptr<Built> built);
  std::unique_ptr<Built> built_;
};

}  // namespace xdit::nn::cudnn
