#include "output/unicode.h"

#include <utf8proc.h>

#include <array>
#include <numeric>

namespace xdit::output {

std::optional<std::u32string> code_points(std::string_view utf8) {
  std::u32string text;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(utf8.data());
  for (auto left = static_cast<utf8proc_ssize_t>(utf8.size()); left > 0;) {
    utf8proc_int32_t point = 0;
    const utf8proc_ssize_t used = utf8proc_iterate(bytes, left, &point);
    if (used <= 0) return std::nullopt;
    text += static_cast<char32_t>(point);
    bytes += used;
    left -= used;
  }
  return text;
}

std::string to_utf8(std::u32string_view text) {
  std::string utf8;
  for (const char32_t point : text) {
    std::array<utf8proc_uint8_t, 4> bytes{};
    const utf8proc_ssize_t used = utf8proc_encode_char(static_cast<utf8proc_int32_t>(point), bytes.data());
    utf8.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(used));
  }
  return utf8;
}

std::size_t columns_of(std::string_view utf8) {
  const std::u32string text = code_points(utf8).value_or(U"");
  return std::accumulate(text.begin(), text.end(), std::size_t{0}, [](std::size_t sum, char32_t point) {
    return sum + static_cast<std::size_t>(utf8proc_charwidth(static_cast<utf8proc_int32_t>(point)));
  });
}

}  // namespace xdit::output
