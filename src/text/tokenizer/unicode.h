#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

/// Unicode as Hugging Face `tokenizers` knows it. All text but the input of valid_utf8 is valid UTF-8.
namespace xdit::text {

/// `bytes` with U+FFFD for each ill-formed part, as Python's errors="replace": one for every maximal subpart.
[[nodiscard]] std::string valid_utf8(std::string_view bytes);

/// The code point at byte `at`, which moves past it.
[[nodiscard]] char32_t next_code_point(std::string_view text, std::size_t& at);
void append_utf8(std::string& to, char32_t c);

[[nodiscard]] bool is_letter(char32_t c);  ///< \p{L}
[[nodiscard]] bool is_number(char32_t c);  ///< \p{N}
[[nodiscard]] bool is_space(char32_t c);   ///< \s, White_Space

[[nodiscard]] std::string nfc(std::string_view text);
/// Each code point alone: no final sigma.
[[nodiscard]] std::string lower(std::string_view text);
/// Extended grapheme clusters (UAX 29).
[[nodiscard]] std::vector<std::string_view> graphemes(std::string_view text);

}  // namespace xdit::text
