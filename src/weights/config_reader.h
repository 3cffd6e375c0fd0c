#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace xdit::weights {

/// Typed reads of a component's config.json. A missing key without a default, a wrong type or a value out of
/// range is Error(kModel) naming file, key, expected and found.
class ConfigReader {
 public:
  /// `where`: "transformer/config.json"; `config` outlives the reader.
  ConfigReader(const nlohmann::json& config, std::string where) : config_(config), where_(std::move(where)) {}

  /// A size, 1 .. 2^24.
  [[nodiscard]] std::int64_t size(const char* key, std::optional<std::int64_t> otherwise = {}) const;
  /// How many parts of a kind, each with tensors of its own: 1 .. 1024.
  [[nodiscard]] std::int64_t count(const char* key, std::optional<std::int64_t> otherwise = {}) const;
  [[nodiscard]] std::vector<std::int64_t> sizes(
      const char* key, std::optional<std::vector<std::int64_t>> otherwise = {}) const;
  /// Any integer; JSON's null is `otherwise`, too.
  [[nodiscard]] std::int64_t integer(const char* key, std::int64_t otherwise) const;
  /// Null is `otherwise`, too.
  [[nodiscard]] double number(const char* key, double otherwise) const;
  [[nodiscard]] bool boolean(const char* key, bool otherwise) const;
  [[nodiscard]] std::string text(const char* key, const std::string& otherwise) const;
  /// Throws Error(kModel) at `key`.
  [[noreturn]] void refuse(const char* key, const std::string& expected) const;

 private:
  [[nodiscard]] const nlohmann::json* find(const char* key) const;  ///< null when absent or JSON's null
  [[nodiscard]] std::int64_t at_most(std::int64_t limit, const char* key,
                                     std::optional<std::int64_t> otherwise) const;

  const nlohmann::json& config_;
  std::string where_;
};

}  // namespace xdit::weights
