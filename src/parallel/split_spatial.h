#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/group.h"
#include "models/sdxl/tables.h"
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
/// Of a UNet's forward at such latents.
[[nodiscard]] SlabBytes slab_bytes(const models::UnetConfig& config, std::int64_t rows, std::int64_t columns,
                                   std::int64_t element_bytes);

/// A picture's rows in slabs over the ranks of a group (exact): a convolution gets the neighbours' edge rows,
/// a group norm the moments of everybody's rows, attention everybody's keys and values. A rank without rows
/// of the latents calls none of it but collect.
class SplitSpatial final : public nn::Spatial {
 public:
  /// Collective. `rows`: each rank's of the latents, in order; at higher resolutions these ranges grow alike.
  /// Kernels of convolutions are at most 3 wide.
  SplitSpatial(comm::Group& group, const std::vector<comm::Range>& rows, const SlabBytes& bytes);
  [[nodiscard]] const nn::Spatial& halved() const override { return halved_ ? *halved_ : *this; }
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& rows) const override;
  /// The picture [C, H, W] on rank 0 from all ranks' rows [C, h, W] of it; undefined on the others.
  [[nodiscard]] at::Tensor collect(const at::Tensor& rows) const;

 private:
  [[nodiscard]] at::Tensor gather_moments(const at::Tensor& rows) const override;
  void fill_halo(const at::Tensor& padded, std::int64_t halo) const override;
  [[nodiscard]] nn::RowPlace place(std::int64_t rows) const override;
  /// What all resolutions of a picture share.
  struct Shared {
    Shared(comm::Group& of, const std::vector<comm::Range>& rows, const SlabBytes& bytes);
    comm::Group& group;
    std::vector<bool> takes_part;  ///< by rank
    comm::PeerBuffer halos;        ///< rows above, then rows below
    comm::PeerBuffer moments;
    comm::PeerBuffer tokens;
    comm::PeerBuffer picture;
  };
  SplitSpatial(std::shared_ptr<Shared> shared, std::vector<comm::Range> rows);
  [[nodiscard]] comm::Range own() const { return rows_.at(shared_->group.rank()); }
  /// How many times as many as here this rank's rows are.
  [[nodiscard]] std::int64_t scale(std::int64_t rows) const;
  /// Every rank's rows, `scale` times as many as here.
  [[nodiscard]] std::vector<comm::Range> ranges(std::int64_t scale) const;
  /// [H, ...] in `buffer` from each rank's rows [h, ...], on every rank that has rows or on rank 0 only.
  [[nodiscard]] at::Tensor gather(const at::Tensor& mine, bool to_all, comm::PeerBuffer& buffer) const;

  std::shared_ptr<Shared> shared_;
  std::vector<comm::Range> rows_;
  std::int64_t all_rows_ = 0;
  std::unique_ptr<SplitSpatial> halved_;  ///< null: one row stays one row
};

}  // namespace xdit::parallel
