#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "nn/convolution.h"
#include "nn/group_norm.h"

namespace xdit::nn {

/// Rows of a picture: `count` of `all`, from `first` on.
struct RowPlace {
  std::int64_t first = 0, count = 0, all = 0;
};

/// Rows of a picture that was made `scale` times as large by repeating pixels, and `columns` of it.
struct Window {
  std::int64_t scale = 1;                         ///< or 2
  std::int64_t first = 0, rows = 0, columns = 0;  ///< `first` of the whole picture
  std::int64_t end = 0;                           ///< rows before 0 and from here on are zeros
  std::int64_t halo = 0;  ///< rows of its neighbours that it reaches into, before it is made larger
};

/// Operations on pictures [B, C, h, W] in which an output row depends on more rows than its own. Where rows
/// are spread over ranks, only the virtual functions know it; a row's bits do not depend on where it is
/// computed. A rank may have no row of a picture that was halved.
class Spatial {
 public:
  explicit Spatial(std::shared_ptr<Convolutions> convolutions = std::make_shared<Convolutions>())
      : convolutions_(std::move(convolutions)) {}
  Spatial(const Spatial&) = delete;
  Spatial& operator=(const Spatial&) = delete;
  virtual ~Spatial() = default;

  /// With zeros around the picture, K / 2 of them.
  [[nodiscard]] at::Tensor convolve(const at::Tensor& x, const Convolution& layer) const;
  /// sum += x, or its convolution by a kernel of one pixel, rounded once where a kernel can.
  void add_shortcut(const at::Tensor& sum, const at::Tensor& x,
                    const std::optional<Convolution>& layer) const;
  /// Of silu(group_norm(x)).
  [[nodiscard]] at::Tensor convolve_normed(const at::Tensor& x, const GroupNorm& norm,
                                           const Convolution& layer) const;
  /// Of x made twice as high and wide by repeating pixels, or a row or column less: `rows` of this rank's and
  /// `columns` in `doubled`, which has the rows of such pictures. Kernels are 3 wide.
  [[nodiscard]] at::Tensor convolve_doubled(const at::Tensor& x, const Convolution& layer,
                                            const Spatial& doubled, std::int64_t rows,
                                            std::int64_t columns) const;
  /// A convolution of stride 2: gives halved()'s rows.
  [[nodiscard]] at::Tensor convolve_halved(const at::Tensor& x, const Convolution& layer) const;
  [[nodiscard]] at::Tensor group_norm(const at::Tensor& x, const GroupNorm& layer) const;
  /// Of pictures half as high, rounded up: their row r is where row 2 r is. Lives as long as this.
  [[nodiscard]] virtual const Spatial& halved() const = 0;
  [[nodiscard]] const std::shared_ptr<Convolutions>& convolutions() const { return convolutions_; }
  [[nodiscard]] bool tf32() const { return convolutions_->tf32(); }  ///< factors in float32 may round to it
  /// [B, H * W, C] of the whole picture from this rank's rows [B, h, W, C]. Valid until the next call.
  [[nodiscard]] virtual at::Tensor gather_tokens(const at::Tensor& rows) const = 0;

 protected:
  /// Mean and variance [B, G, 2] of the whole picture from the moments [B, h, G, 2] of this rank's rows, of
  /// `row_elements` each, which may be overwritten.
  [[nodiscard]] virtual at::Tensor whole_moments(const at::Tensor& rows, std::int64_t row_elements) const = 0;
  /// Gives the first and last `halo` rows of `padded` the neighbours' rows, zeros at the picture's edges.
  virtual void fill_halo(const at::Tensor& padded, std::int64_t halo) const = 0;
  /// `to` becomes group_norm(x), or its SiLU, with `halo` rows of its neighbours above and below.
  virtual void normalise_padded(const at::Tensor& x, const GroupNorm& layer, bool silu, const at::Tensor& to,
                                std::int64_t halo) const;
  /// [B, C, rows, columns] of this rank's rows x and their neighbours.
  [[nodiscard]] virtual at::Tensor window(const at::Tensor& x, const Window& of) const;
  /// Where this rank's rows of a picture are, `rows` in all.
  [[nodiscard]] virtual RowPlace place(std::int64_t rows) const = 0;

 private:
  [[nodiscard]] at::Tensor padded(const at::Tensor& x, std::int64_t halo) const;  ///< x with halo rows

  std::shared_ptr<Convolutions> convolutions_;
};

/// All rows are on this rank.
class LocalSpatial final : public Spatial {
 public:
  using Spatial::Spatial;
  [[nodiscard]] const Spatial& halved() const override { return *this; }
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& rows) const override;

 private:
  [[nodiscard]] at::Tensor whole_moments(const at::Tensor& rows, std::int64_t row_elements) const override {
    return merge_rows(rows, row_elements);
  }
  void fill_halo(const at::Tensor& padded, std::int64_t halo) const override;
  void normalise_padded(const at::Tensor& x, const GroupNorm& layer, bool silu, const at::Tensor& padded,
                        std::int64_t halo) const override;
  [[nodiscard]] at::Tensor window(const at::Tensor& x, const Window& of) const override;
  [[nodiscard]] RowPlace place(std::int64_t rows) const override { return {0, rows, rows}; }
};

}  // namespace xdit::nn
