#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace xdit::pipeline {

/// Collects what --trace writes (product.md): one tensor a picture and name, stacked over pictures at the
/// end. Does nothing unless `enabled`.
class Trace {
 public:
  explicit Trace(bool enabled) : enabled_(enabled) {}
  [[nodiscard]] bool enabled() const { return enabled_; }
  /// Floating point is kept as float32, ids as int64.
  void add(const std::string& name, const at::Tensor& tensor);
  void add(const std::string& name, const std::vector<std::int64_t>& ids);
  void write(const std::filesystem::path& path, bool overwrite) const;

 private:
  bool enabled_;
  std::map<std::string, std::vector<at::Tensor>> tensors_;
};

}  // namespace xdit::pipeline
