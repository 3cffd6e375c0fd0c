#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "weights/key_map.h"

namespace xdit::models {

/// Shapes of the tensors of a part of a file.
class PartShapes {
 public:
  /// Those whose names begin with `prefix`, by what follows it.
  PartShapes(const weights::TensorTable& table, const std::string& prefix);
  /// By diffusers' names.
  PartShapes(const weights::TensorTable& table, const weights::KeyMap& keys);

  [[nodiscard]] bool has(const std::string& name) const { return shapes_.contains(name); }
  /// Error(kModel) if it is not there.
  [[nodiscard]] const std::vector<std::int64_t>& at(const std::string& name) const;
  /// Its size in a dimension, of `dimensions` or any number; likewise.
  [[nodiscard]] std::int64_t size(const std::string& name, std::size_t dimension,
                                  std::optional<std::size_t> dimensions = {}) const;
  /// That of any tensor whose name ends so, or nullptr.
  [[nodiscard]] const std::vector<std::int64_t>* any(std::string_view end) const;
  /// How many of `before`0`after`, `before`1`after`, ... there are.
  [[nodiscard]] std::int64_t count(const std::string& before, const std::string& after) const;
  [[noreturn]] void fail(const std::string& message, const std::string& fix = {}) const;

 private:
  std::map<std::string, std::vector<std::int64_t>> shapes_;
  std::string prefix_;
  std::filesystem::path file_;
};

}  // namespace xdit::models
