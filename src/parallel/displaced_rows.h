#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/row_exchange.h"

namespace xdit::parallel {

/// Rows of the forward before (DistriFusion, Li et al. 2024; approximate): nobody waits for this forward's,
/// which arrive while the next one runs. The latents' own rows, the first that a forward exchanges, are
/// fresh. A picture begins with synchronous forwards, so that nothing of the picture before is left.
class DisplacedRows final : public RowExchange {
 public:
  /// Collective. `exchanges`: those of a forward; each keeps its rows from one forward of each of `branches`
  /// prompts to the next. A rank that takes no part makes no exchange.
  DisplacedRows(comm::Group& group, bool takes_part, std::span<const RowBytes> exchanges,
                std::int64_t branches);
  /// A forward of prompt `branch` begins; all its rows are fresh where it is `synchronous`.
  void begin(std::int64_t branch, bool synchronous);
  [[nodiscard]] Arrived exchange(const RowTransfer& transfer, comm::Stream stream) override;

 private:
  /// Transfers lie in its halves in turn: one is read while the next comes in.
  struct Kept {
    RowBytes half;
    comm::PeerBuffer buffer;
    comm::Peers from{};
    std::int64_t put = 0;
    std::int64_t arrived = 0;
  };
  std::vector<Kept> kept_;  ///< [branches, exchanges]
  std::int64_t exchanges_;
  std::int64_t next_ = 0;
  bool synchronous_ = true;
  std::int64_t begin_ = 0;   ///< of the forward's branch in kept_
  Kept* reading_ = nullptr;  ///< what was returned last
};

/// A group norm's mean and variance [1, G, 2] of the whole picture, from the moments [1, H, G, 2] of all rows
/// a step ago, `own` of which are this rank's, and the moments [1, h, G, 2] of those now: means of values and
/// of squares change as this rank's do; where the variance would be negative, this rank's stands for it (Li
/// et al. 2024, section 4). Overwrites both.
[[nodiscard]] at::Tensor corrected_moments(const at::Tensor& stale, comm::Range own, const at::Tensor& fresh,
                                           std::int64_t row_elements);

}  // namespace xdit::parallel
