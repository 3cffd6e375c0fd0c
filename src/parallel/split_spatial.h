#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "comm/group.h"
#include "models/vae/tables.h"
#include "nn/spatial.h"

namespace xdit::parallel {

/// Bytes that the ranks of one picture exchange at most at once.
struct SlabBytes {
  std::int64_t row = 0;      ///< of an input row of a convolution
  std::int64_t moments = 0;  ///< of all rows' moments, for a group norm
  std::int64_t tokens = 0;   ///< of all keys and values
  std::int64_t picture = 0;  ///< of the result
};
/// Of a decoder that makes a picture of `rows` x `columns` latents in elements of `element_bytes`.
[[nodiscard]] SlabBytes slab_bytes(const models::VaeConfig& config, std::int64_t rows, std::int64_t columns,
                                   std::int64_t element_bytes);

/// A picture's rows in slabs over the ranks of a group (exact): a convolution gets the neighbours' edge rows,
/// a group norm the moments of everybody's rows, attention everybody's keys and values. A rank without rows
/// calls none of it but collect.
class SplitSpatial final : public nn::Spatial {
 public:
  /// Collective. `rows`: each rank's of the latents, in order; at higher resolutions these ranges grow alike.
  /// Kernels of convolutions are at most 3 wide.
  SplitSpatial(comm::Group& group, std::vector<comm::Range> rows, const SlabBytes& bytes);
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& tokens) const override;
  /// The picture [C, H, W] on rank 0 from all ranks' rows [C, h, W] of it; undefined on the others.
  [[nodiscard]] at::Tensor collect(const at::Tensor& rows) const;

 private:
  [[nodiscard]] at::Tensor gather_moments(const at::Tensor& rows) const override;
  void fill_halo(const at::Tensor& padded, std::int64_t halo) const override;
  [[nodiscard]] bool has_rows() const { return rows_.at(group_.rank()).count > 0; }
  /// Every rank's rows where `mine` are this rank's.
  [[nodiscard]] std::vector<comm::Range> ranges(std::int64_t mine) const;
  /// [H, ...] in `buffer` from each rank's rows [h, ...], on every rank that has rows or on rank 0 only.
  [[nodiscard]] at::Tensor gather(const at::Tensor& mine, bool to_all, comm::PeerBuffer& buffer) const;

  comm::Group& group_;
  std::vector<comm::Range> rows_;
  std::int64_t all_rows_;
  mutable comm::PeerBuffer halos_;  ///< rows above, then rows below
  mutable comm::PeerBuffer moments_;
  mutable comm::PeerBuffer tokens_;
  mutable comm::PeerBuffer picture_;
};

}  // namespace xdit::parallel
