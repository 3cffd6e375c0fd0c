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
  at::ScalarType result = type;  ///< and of what is added
  Epilogue epilogue = Epilogue::kNone;
  [[nodiscard]] bool wider() const { return result != type; }
  [[nodiscard]] std::int64_t input_rows(std::int64_t rows) const { return (rows - 1) * stride + kernel; }
  [[nodiscard]] std::int64_t output_columns() const { return (columns - 1) / stride + 1; }
  auto operator<=>(const Shape&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14's own fault
};

/// How much of it is computed at once.
struct Extent {
  std::int64_t rows = 0;  ///< of the output
  std::int64_t pictures = 1;
  auto operator<=>(const Extent&) const = default;  // NOLINT(modernize-use-nullptr): as above
};

/// Names of the plans that cuDNN's heuristics list for that extent on the current GPU, best first: an engine
/// and its knobs, such as "eng62_k24=17_k25=1".
[[nodiscard]] std::vector<std::string> plan_names(const Shape& shape, const Extent& extent);

/// y [B, O, rows, w] becomes that of x [B, C, input_rows(rows), W] and weight [O, C, K, K], all
/// channels-last; bias [O] and picture [B, O, rows, w] if the shape's epilogue wants them.
struct Arguments {
  const at::Tensor& y;
  at::Tensor x;
  const at::Tensor& weight;
  at::Tensor bias = {};
  at::Tensor picture = {};
};

/// A convolution of one extent, ready to run on the GPU that it was built on.
class Plan {
 public:
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan();
  /// Null where cuDNN does not support it; `why` says so then.
  [[nodiscard]] static std::unique_ptr<Plan> build(const Shape& shape, const Extent& extent,
                                                   const std::string& name, std::string* why = nullptr);
  void operator()(const Arguments& arguments) const;
  [[nodiscard]] std::int64_t workspace_bytes() const;

 private:
  struct Built;
  explicit Plan(std::unique_ptr<Built> built);
  std::unique_ptr<Built> built_;
};

/// Whether the GPU runs `a` in less time than `b`; false while its stream is captured, since then nothing
/// runs.
[[nodiscard]] bool is_faster(const Plan& a, const Plan& b, const Arguments& arguments);

}  // namespace xdit::nn::cudnn
