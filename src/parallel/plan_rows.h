#pragma once
#include <cstdint>
#include <vector>

#include "models/registry.h"
#include "models/sdxl/tables.h"
#include "models/vae/tables.h"

/// What ranks that hold rows of one picture exchange.
namespace xdit::parallel {

constexpr std::int64_t kHaloRows = 1;  ///< rows that a kernel reaches beyond those of its output, at most

/// Rows beside this rank's for a convolution, all rows' moments for a group norm, all keys and values for
/// attention, or the result for the rank that writes it.
enum class RowKind : std::uint8_t { kHalo, kMoments, kTokens, kPicture };
constexpr std::int64_t kRowKinds = 4;

/// One exchange, and the bytes that a rank gets in it at most, a multiple of 256.
struct RowBytes {
  RowKind kind;
  std::int64_t bytes;
};
/// Those of a UNet's forward at `rows` x `columns` latents in elements of `element_bytes`, in order.
[[nodiscard]] std::vector<RowBytes> row_exchanges(const models::UnetConfig& config, std::int64_t rows,
                                                  std::int64_t columns, std::int64_t element_bytes);

/// What displaced rows keep on a rank that has some, of `branches` prompts.
[[nodiscard]] std::int64_t displaced_bytes(const std::vector<RowBytes>& exchanges, std::int64_t branches);

/// The config of the model's UNet.
[[nodiscard]] models::UnetConfig unet_of(const models::Model& model);

/// The most bytes that an exchange of each kind takes.
using SlabBytes = std::vector<std::int64_t>;
/// Of a decoder that makes a picture of such latents, and of a UNet's forward.
[[nodiscard]] SlabBytes slab_bytes(const models::VaeConfig& config, std::int64_t rows, std::int64_t columns,
                                   std::int64_t element_bytes);
[[nodiscard]] SlabBytes slab_bytes(const models::UnetConfig& config, std::int64_t rows, std::int64_t columns,
                                   std::int64_t element_bytes);

}  // namespace xdit::parallel
