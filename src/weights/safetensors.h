#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace xdit::weights {

/// A tensor as it lies in a file, row-major.
struct FileTensor {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::uint64_t offset = 0;  ///< bytes from the start of the file
  std::uint64_t bytes = 0;
  std::int32_t file = 0;  ///< index into TensorTable::files
};

/// The tensors of one or more safetensors files (the shards of a component).
struct TensorTable {
  std::vector<std::filesystem::path> files;
  std::map<std::string, FileTensor> tensors;
  std::map<std::string, std::string> metadata;  ///< "__metadata__" of the first file
};

/// Reads and checks a header, as strictly as formats.md says and in bounded memory; no tensor bytes are read.
/// Every fault is Error(kModel) naming file, tensor, what was expected and what was found.
[[nodiscard]] TensorTable read_safetensors(const std::filesystem::path& file);

/// Adds the tensors of `more`; a name that both hold is Error(kModel).
void merge(TensorTable& table, TensorTable more);

}  // namespace xdit::weights
