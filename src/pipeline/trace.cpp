#include "pipeline/trace.h"

#include <ATen/ATen.h>

#include "output/trace.h"

namespace xdit::pipeline {

void Trace::add(const std::string& name, const at::Tensor& tensor) {
  if (enabled_)
    tensors_[name].push_back(tensor.is_floating_point() ? tensor.to(at::kCPU, at::kFloat) : tensor.cpu());
}

void Trace::add(const std::string& name, const std::vector<std::int64_t>& ids) {
  if (enabled_) tensors_[name].push_back(at::tensor(at::ArrayRef<std::int64_t>(ids), at::kLong));
}

void Trace::write(const std::filesystem::path& path, bool overwrite) const {
  if (!enabled_) return;
  std::vector<at::Tensor> stacked;
  std::vector<output::TraceTensor> records;
  for (const auto& [name, parts] : tensors_) {
    const at::Tensor& all = stacked.emplace_back(at::stack(parts).contiguous());
    records.push_back({.name = name,
                       .dtype = all.scalar_type() == at::kLong ? DType::kI64 : DType::kF32,
                       .shape = all.sizes().vec(),
                       .bytes = {static_cast<const std::byte*>(all.const_data_ptr()), all.nbytes()}});
  }
  output::write_safetensors(path, records, {}, overwrite);
}

}  // namespace xdit::pipeline
