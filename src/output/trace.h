#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace xdit::output {

/// A tensor to write: row-major, little-endian, contiguous. The bytes are the caller's.
struct TraceTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes a safetensors file atomically (--trace). Names are unique, bytes.size() is shape x dtype: else a
/// broken invariant. Faults of the file are Error(kOutput).
void write_safetensors(const std::filesystem::path& path, std::span<const TraceTensor> tensors,
                       const std::map<std::string, std::string>& metadata, bool overwrite);

}  // namespace xdit::output
