#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/group.h"
#include "nn/spatial.h"
#include "parallel/row_exchange.h"

namespace xdit::parallel {

/// A picture's rows in slabs over the ranks of a group: a convolution gets the neighbours' edge rows, a group
/// norm the moments of everybody's rows, attention everybody's keys and values; exact where these are fresh.
/// A rank without rows of the latents calls none of it but collect.
class SplitSpatial final : public nn::Spatial {
 public:
  /// Collective. `rows`: each rank's of the latents, in order; at higher resolutions these ranges grow alike.
  /// Kernels of convolutions are at most 3 wide.
  SplitSpatial(comm::Group& group, const std::vector<comm::Range>& rows, const SlabBytes& bytes,
               std::shared_ptr<nn::Convolutions> convolutions = std::make_shared<nn::Convolutions>());
  SplitSpatial(const comm::Group& group, const std::vector<comm::Range>& rows,
               std::shared_ptr<RowExchange> exchange,
               std::shared_ptr<nn::Convolutions> convolutions = std::make_shared<nn::Convolutions>());
  [[nodiscard]] const nn::Spatial& halved() const override { return halved_ ? *halved_ : *this; }
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& rows) const override;
  /// The picture [C, H, W] on rank 0 from all ranks' rows [C, h, W] of it; undefined on the others.
  [[nodiscard]] at::Tensor collect(const at::Tensor& rows) const;

 private:
  [[nodiscard]] at::Tensor whole_moments(const at::Tensor& rows, std::int64_t row_elements) const override;
  void fill_halo(const at::Tensor& padded, std::int64_t halo) const override;
  [[nodiscard]] nn::RowPlace place(std::int64_t rows) const override;
  /// What all resolutions of a picture share.
  struct Shared {
    int rank;
    std::vector<bool> takes_part;  ///< by rank
    std::shared_ptr<RowExchange> exchange;
  };
  SplitSpatial(std::shared_ptr<Shared> shared, std::vector<comm::Range> rows,
               std::shared_ptr<nn::Convolutions> convolutions);
  [[nodiscard]] comm::Range own() const { return rows_.at(static_cast<std::size_t>(shared_->rank)); }
  /// How many times as many as here this rank's rows are.
  [[nodiscard]] std::int64_t scale(std::int64_t rows) const;
  /// Every rank's rows, `scale` times as many as here.
  [[nodiscard]] std::vector<comm::Range> ranges(std::int64_t scale) const;
  struct Gathered {
    at::Tensor rows;
    RowExchange::Arrived arrived;
  };
  /// [H, ...] from each rank's rows [h, ...], on every rank that has rows; a picture on rank 0 only.
  [[nodiscard]] Gathered gather(const at::Tensor& mine, RowKind kind) const;

  std::shared_ptr<Shared> shared_;
  std::vector<comm::Range> rows_;
  std::int64_t all_rows_ = 0;
  std::unique_ptr<SplitSpatial> halved_;  ///< null: one row stays one row
};

}  // namespace xdit::parallel
