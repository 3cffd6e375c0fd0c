#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>

#include "core/file.h"
#include "weights/safetensors.h"

namespace xdit::test {

/// All tensors of a safetensors file of float32 and int64.
inline std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path) {
  const weights::TensorTable table = weights::read_safetensors(path);
  const File file = File::open_read(path, ExitCode::kModel);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, entry] : table.tensors) {
    const at::Tensor tensor = at::empty(entry.shape, entry.dtype == DType::kI64 ? at::kLong : at::kFloat);
    static_cast<void>(
        file.read_at({static_cast<std::byte*>(tensor.mutable_data_ptr()), entry.bytes}, entry.offset));
    tensors.emplace(name, tensor);
  }
  return tensors;
}

/// Frobenius norm of the difference over that of the reference.
inline double relative_error(const at::Tensor& value, const at::Tensor& reference) {
  if (value.sizes() != reference.sizes()) return 1e30;
  const at::Tensor a = value.to(at::kCPU, at::kDouble);
  const at::Tensor b = reference.to(at::kCPU, at::kDouble);
  return ((a - b).norm() / b.norm()).item<double>();
}

}  // namespace xdit::test
