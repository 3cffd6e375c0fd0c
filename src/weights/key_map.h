#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "weights/safetensors.h"

namespace xdit::weights {

inline constexpr std::int64_t kNoBlock = -1;  ///< needed outside the network's list of blocks

/// A tensor that a network wants, under its canonical (diffusers) name.
struct Wanted {
  std::string name;
  std::vector<std::int64_t> shape;
  std::int64_t block = kNoBlock;  ///< the block that needs it
};

/// The dimension in which tensor parallelism cuts a parameter (Shoeybi et al. 2019): a linear's outputs,
/// each part's for itself, and the inputs of the linear that takes them.
enum class Cut : std::uint8_t { kNone, kOutputs, kInputs };

/// A tensor that a network holds: one wanted tensor, or several stacked along dimension 0 (fused q, k, v).
struct Parameter {
  std::string name;  ///< the network's own name for it
  std::vector<std::int64_t> shape;
  std::vector<Wanted> parts;
  Cut cut = Cut::kNone;
  std::vector<std::int64_t> inputs{};  ///< with kInputs: widths that stand side by side, each cut for itself
  std::int64_t piece_rows = 0;         ///< it is used so many rows at a time, the rest at the end; 0: whole
  [[nodiscard]] std::int64_t block() const;  ///< that of all its parts, or kNoBlock
  /// Whether it is the matrix of a linear that tensor parallelism cuts: what may be quantised.
  [[nodiscard]] bool is_cut_matrix() const { return cut != Cut::kNone && shape.size() == 2; }
};
/// One part of that name.
[[nodiscard]] Parameter parameter(std::string name, std::vector<std::int64_t> shape,
                                  std::int64_t block = kNoBlock);
[[nodiscard]] Parameter stacked(std::string name, std::vector<Wanted> parts);

/// Rows [first_row, first_row + rows) of dimension 0 of a tensor in a file. A tensor without dimensions has
/// one row.
struct Slice {
  std::string file_name;  ///< name in the TensorTable
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
};

/// Canonical name -> the slices that, one after the other along dimension 0, make the tensor.
/// One-to-many (fused qkv -> to_q, to_k, to_v) and many-to-one (swapped halves) are both rows of this table.
using KeyMap = std::map<std::string, std::vector<Slice>>;

/// Every canonical name as itself.
[[nodiscard]] KeyMap identity_map(const TensorTable& table);
[[nodiscard]] Slice whole(const std::string& file_name, const FileTensor& tensor);  ///< all rows of a tensor

/// Names in a file that may stay unused, by how they begin: {"encoder.", "quant_conv."}.
using Ignored = std::vector<std::string>;

/// What is wrong between a network and its files; all empty when they fit.
struct Mismatch {
  std::vector<std::string> missing;  ///< canonical names that are wanted and not in the files
  std::vector<std::string> extra;    ///< names in the files that nothing wants
  struct Unfit {
    std::string file_name;  ///< of the tensor in the files
    std::string why;        ///< "expected shape [3, 4], found [4, 3]", or a dtype that is not of weights
  };
  std::vector<Unfit> unfit;
};
[[nodiscard]] Mismatch compare(std::span<const Parameter> parameters, const TensorTable& table,
                               const KeyMap& keys, const Ignored& ignored = {});

/// A contiguous run of bytes in a file, and which elements of the flattened parameter they are.
struct Piece {
  std::int32_t file = 0;      ///< index into TensorTable::files
  std::uint64_t offset = 0;   ///< in the file
  std::uint64_t bytes = 0;    ///< elements x size_of(dtype)
  DType dtype = DType::kF32;  ///< in the file: one of F64, F32, F16, BF16
  std::int64_t first_element = 0;
  std::int64_t elements = 0;
};

/// A parameter and where its bytes are: `pieces` cover elements 0 .. product of shape in order, without a
/// gap. Where piece.dtype is the run's, the piece can be read to first_element x size_of(dtype) of the
/// parameter itself.
struct Placed {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<Piece> pieces;
};

/// Resolves parameters to file pieces, in the order of `parameters`. What `compare` finds is Error(kModel):
/// file, tensor, expected, found, and how many more there are.
[[nodiscard]] std::vector<Placed> place(std::span<const Parameter> parameters, const TensorTable& table,
                                        const KeyMap& keys, const Ignored& ignored = {});

}  // namespace xdit::weights
