#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace xdit::text::test {

/// tests/data.
[[nodiscard]] std::filesystem::path data_folder();
/// CLIP's own vocabulary, which the ctest fixture clip_vocabulary writes. Fails the test when it is not
/// there.
[[nodiscard]] std::filesystem::path clip_folder();
/// tests/data/tokenizers/NAME, parsed.
[[nodiscard]] nlohmann::json golden(const std::string& name);
/// The strings of strings.json: bytes, not always UTF-8.
[[nodiscard]] std::vector<std::string> golden_strings();

/// kind: "clip" or "t5".
[[nodiscard]] std::unique_ptr<Tokenizer> open(const std::string& kind, const std::filesystem::path& folder);

/// As make_tokenizers.py's hash_of: FNV-1a over the lines.
class Hash {
 public:
  void add_line(std::string_view line);
  [[nodiscard]] std::string hex() const;

 private:
  bool first_ = true;
  std::uint64_t value_ = 0xCBF29CE484222325U;
};

/// "1 2 3".
[[nodiscard]] std::string as_text(const std::vector<std::int64_t>& ids);

void write(const std::filesystem::path& file, std::string_view bytes);

}  // namespace xdit::text::test
