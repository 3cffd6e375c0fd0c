#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "comm/group.h"
#include "models/registry.h"
#include "nn/linear.h"

namespace xdit::parallel {

/// Tensor parallelism (Shoeybi et al. 2019; rounding): linears whose outputs are cut need nothing, since the
/// next layer takes the share; those whose inputs are cut sum their products in float32, each rank the rows
/// of its share, which then go to all.
class TensorLinears final : public nn::Linears {
 public:
  /// `group`: the ranks that share the weights of `network`; `rows`: of the longest input.
  TensorLinears(comm::Group& group, const models::Network& network, std::int64_t rows,
                at::TensorOptions options);
  [[nodiscard]] std::unique_ptr<nn::Linear> make(const nn::Weights& weights, const std::string& name,
                                                 bool bias) const override;

  /// Sum over ranks of `product` [T, C] in float32, plus `bias`, on all of them in the run's dtype. In one
  /// of two buffers, while the tensor lives.
  [[nodiscard]] at::Tensor sum(const at::Tensor& product, const at::Tensor& bias) const;

 private:
  comm::Group& group_;
  at::TensorOptions options_;
  std::set<std::string> cut_inputs_;  ///< names of linears
  std::int64_t width_ = 0;            ///< of the widest of their outputs
  mutable std::optional<comm::PeerBuffer> staging_;
  std::array<std::shared_ptr<comm::PeerBuffer>, 2> results_;  ///< that a forward needs at once
};

}  // namespace xdit::parallel
