#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace xdit::output {

/// The characters of UTF-8 text, or nothing when it is not valid.
[[nodiscard]] std::optional<std::u32string> code_points(std::string_view utf8);
[[nodiscard]] std::string to_utf8(std::u32string_view text);
/// What a terminal takes for it: two columns for a wide character, none for a combining one.
[[nodiscard]] std::size_t columns_of(std::string_view utf8);

}  // namespace xdit::output
