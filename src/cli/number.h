#pragma once
#include <charconv>
#include <optional>
#include <string>
#include <system_error>

namespace xdit::cli {

/// Of a text that is one number and nothing else.
template <class T>
[[nodiscard]] std::optional<T> number(const std::string& text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stopped == end ? std::optional(value) : std::nullopt;
}

}  // namespace xdit::cli
