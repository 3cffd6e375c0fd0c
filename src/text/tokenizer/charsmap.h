#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace xdit::text {

/// sentencepiece's precompiled normaliser as Hugging Face `tokenizers` applies it: a double-array trie
/// (Darts) from bytes to replacements, asked for each grapheme of under 6 bytes, then for each code point. A
/// grapheme is replaced as a whole by the replacement of its shortest beginning, so that an accent on a
/// ligature is lost.
class Charsmap {
 public:
  /// Changes nothing.
  Charsmap() = default;
  /// `blob`: u32 size of the trie in bytes, the trie as u32, then NUL-terminated UTF-8; all little-endian.
  /// Faults are Error(kModel) at `where`.
  Charsmap(std::string_view blob, std::string where);

  /// `text` is valid UTF-8. A trie that points outside itself is an Error(kModel).
  [[nodiscard]] std::string normalize(std::string_view text) const;

 private:
  [[nodiscard]] std::optional<std::string_view> replacement(std::string_view text) const;
  [[nodiscard]] std::uint32_t unit(std::uint64_t index) const;
  [[nodiscard]] std::string_view replacement_at(std::uint32_t offset) const;

  std::vector<std::uint32_t> trie_;
  std::string replacements_;
  std::string where_;
};

}  // namespace xdit::text
