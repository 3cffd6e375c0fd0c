#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
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

/// Text and image have weights of their own and attend together.
class FluxDoubleBlock {
 public:
  FluxDoubleBlock(const FluxConfig& config, const nn::Weights& weights, const nn::Linears& linears,
                  std::int64_t index);
  /// Updates image [T, C] and returns what updates text [S, C], which the next block's attention wants. Calls
  /// `before`, the block before's, while image's tokens travel.
  [[nodiscard]] std::function<void()> forward(nn::ResidualStream& text, nn::ResidualStream& image,
                                              FluxModulations& modulations, const at::Tensor& rotary,
                                              nn::Attention& attention,
                                              const std::function<void()>& before) const;
  /// Whether what forward() returns may be called once the block has been left.
  [[nodiscard]] bool text_stays() const { return text_stays_; }

 private:
  struct Half {
    std::unique_ptr<nn::Linear> qkv, proj, mlp_in, mlp_out;
    at::Tensor query_norm, key_norm;
  };
  std::int64_t index_;
  std::int64_t head_dim_;
  bool text_stays_;
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
