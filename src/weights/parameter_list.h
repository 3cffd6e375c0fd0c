#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "weights/key_map.h"

namespace xdit::weights {

/// One of the linears whose outputs stand side by side in a stacked one.
struct StackedPart {
  std::string name;
  std::int64_t outputs;
  std::int64_t block = kNoBlock;
};

/// Writes down a network's parameters layer by layer.
class ParameterList {
 public:
  void block(std::int64_t index) { block_ = index; }  ///< what follows is of this block, or of kNoBlock
  void tensor(const std::string& name, std::vector<std::int64_t> shape);
  void linear(const std::string& name, std::int64_t inputs, std::int64_t outputs, bool bias = true);
  /// One that the files hold as a convolution of single pixels.
  void pixel_linear(const std::string& name, std::int64_t inputs, std::int64_t outputs);
  /// One that tensor parallelism cuts: its outputs, or its inputs, which stand side by side.
  void cut_outputs(const std::string& name, std::int64_t inputs, std::int64_t outputs);
  void cut_inputs(const std::string& name, const std::vector<std::int64_t>& inputs, std::int64_t outputs);
  /// Linears of the same inputs as one: their weights and biases one after the other.
  void stacked(const std::string& name, const std::vector<StackedPart>& parts, std::int64_t inputs,
               bool bias = true, Cut cut = Cut::kNone);
  /// Such a linear whose matrix is used `piece` rows at a time.
  void stacked_in_pieces(const std::string& name, const std::vector<StackedPart>& parts, std::int64_t inputs,
                         std::int64_t piece);
  void norm(const std::string& name, std::int64_t width, bool bias);
  void convolution(const std::string& name, std::int64_t inputs, std::int64_t outputs, std::int64_t kernel);

  [[nodiscard]] std::vector<Parameter> take() { return std::move(parameters_); }

 private:
  std::vector<Parameter> parameters_;
  std::int64_t block_ = kNoBlock;
};

}  // namespace xdit::weights
