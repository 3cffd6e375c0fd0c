#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "models/flux/tables.h"
#include "nn/attention.h"
#include "nn/linear.h"
#include "nn/residual_stream.h"
#include "nn/weights.h"

/// The layers of black-forest-labs/flux modules/layers.py, for the tokens of one picture. The linears may
/// hold a share of the heads and of the MLP.
namespace xdit::models {

/// One step's row of the modulations, handed out in the order of use.
class FluxModulations {
 public:
  /// `row` [M], `width` C.
  FluxModulations(at::Tensor row, std::int64_t width) : row_(std::move(row)), width_(width) {}
  [[nodiscard]] at::Tensor next() { return row_.narrow(0, width_ * used_++, width_); }  ///< [C]

 private:
  at::Tensor row_;
  std::int64_t width_;
  std::int64_t used_ = 0;
};

/// What modulates a layer: y = gate layer(norm(x) (1 + scale) + shift); each [C].
struct FluxModulation {
  explicit FluxModulation(FluxModulations& from)
      : shift(from.next()), scale(from.next()), gate(from.next()) {}
  at::Tensor shift, scale, gate;
};

/// The tokens of double blocks and what they attend in, one memory for all blocks: text's rows of a block may
/// be written while image is still at the one before.
struct FluxTokens {
  nn::ResidualStream text;   ///< [S, C]
  nn::ResidualStream image;  ///< [T, C]
  nn::RotatedTokens joint;   ///< both
  at::Tensor attended;       ///< [S + T, H * D]
};

/// Text and image have weights of their own and attend together. From one attention to the next neither needs
/// the other: text is computed on attention.beside(), which is begun before the first block and joined after
/// the last.
class FluxDoubleBlock {
 public:
  FluxDoubleBlock(const FluxConfig& config, const nn::Weights& weights, const nn::Linears& linears,
                  std::int64_t index);
  /// Those of this and the following blocks: x [S + T, C].
  [[nodiscard]] FluxTokens tokens(const at::Tensor& x, std::int64_t text, const at::Tensor& rotary) const;
  void forward(FluxTokens& tokens, FluxModulations& modulations, nn::Attention& attention) const;

 private:
  struct Half {
    std::unique_ptr<nn::Linear> qkv, proj, mlp_in, mlp_out;
    at::Tensor query_norm, key_norm;
  };
  std::int64_t index_;
  std::int64_t head_dim_;
  Half image_;
  Half text_;
};

/// One stream of all tokens; attention and MLP side by side.
class FluxSingleBlock {
 public:
  FluxSingleBlock(const FluxConfig& config, const nn::Weights& weights, const nn::Linears& linears,
                  std::int64_t index);
  /// Updates x [S + T, C].
  void forward(nn::ResidualStream& x, FluxModulations& modulations, const at::Tensor& rotary,
               nn::Attention& attention) const;

 private:
  std::int64_t index_;  ///< among all blocks
  std::int64_t head_dim_;
  std::unique_ptr<nn::Linear> qkv_, mlp_in_, out_;  ///< `out_` takes the heads' and the MLP's
  at::Tensor query_norm_;
  at::Tensor key_norm_;
};

}  // namespace xdit::models
