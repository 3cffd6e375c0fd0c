#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "config/settings.h"

/// Text of a setting <-> typed values, by the type and the allowed values that the key table states.
namespace xdit::config {

// What a value must be, as errors and the help say it.
inline constexpr std::string_view kInteger = "an integer";
inline constexpr std::string_view kSize = "a multiple of 8 in";
inline constexpr std::string_view kExtent = "auto or two sides, as 1024x768, each";
inline constexpr std::string_view kNumber = "a number";
inline constexpr std::string_view kAutoInteger = "auto or an integer";
inline constexpr std::string_view kAutoNumber = "auto or a number";
inline constexpr std::string_view kBoolean = "a boolean";
inline constexpr std::string_view kText = "text";
inline constexpr std::string_view kTexts = "text or a list of texts";
inline constexpr std::string_view kChoice = "one of";
inline constexpr std::string_view kDuration = "a duration";
inline constexpr std::string_view kSeeds = "integers or ranges";
inline constexpr std::string_view kDevices = "GPUs:";

/// Throws "sampling.steps: expected an integer 1..1000, found ..." at the setting. `value`, when given, would
/// do: the fix shows it as the setting's source spells it.
[[noreturn]] void refuse(const Key& key, const Setting& setting, const std::string& found,
                         const std::string& value = {});
/// Untrusted text in quotes, without control characters, shortened: fit for a message.
[[nodiscard]] std::string in_quotes(std::string_view text);
/// Invalid bytes become U+FFFD, as Python's errors="replace".
[[nodiscard]] std::string valid_utf8(const std::string& text);
/// The parts between separators; of an empty text, one empty part.
[[nodiscard]] std::vector<std::string> split(std::string_view text, char separator);
/// "60s", "10m", "1.5h", "500ms" in seconds.
[[nodiscard]] std::optional<double> parse_duration(std::string_view text);
/// Seeds and ranges ("7", "1-4,9"); `draw` answers each -1.
[[nodiscard]] std::vector<std::uint64_t> read_seeds(const Key& key, const Setting& setting,
                                                    const std::function<std::uint64_t()>& draw);

void read(const Key& key, const Setting& setting, std::int64_t& to);
void read(const Key& key, const Setting& setting, double& to);
void read(const Key& key, const Setting& setting, Extent& to);
void read(const Key& key, const Setting& setting, bool& to);
void read(const Key& key, const Setting& setting, std::string& to);
void read(const Key& key, const Setting& setting, std::optional<std::string>& to);  ///< unset: no value
void read(const Key& key, const Setting& setting, DType& to);
void read(const Key& key, const Setting& setting, std::vector<std::string>& to);
void read(const Key& key, const Setting& setting, std::vector<std::uint64_t>& to);  ///< -1 reads as 0
/// Its place in key.allowed; '_' is '-' there.
[[nodiscard]] std::size_t read_choice(const Key& key, const Setting& setting);

[[nodiscard]] std::string print(const Key& key, std::int64_t value);
[[nodiscard]] std::string print(const Key& key, double value);
[[nodiscard]] std::string print(const Key& key, const Extent& value);
[[nodiscard]] std::string print(const Key& key, bool value);
[[nodiscard]] std::string print(const Key& key, const std::string& value);
[[nodiscard]] std::string print(const Key& key, const std::optional<std::string>& value);
[[nodiscard]] std::string print(const Key& key, DType value);
[[nodiscard]] std::string print(const Key& key, const std::vector<std::string>& value);
[[nodiscard]] std::string print(const Key& key, const std::vector<std::uint64_t>& value);

template <class E>
concept Enum = std::is_enum_v<E>;

/// Enumerators stand in the order of key.allowed.
template <Enum E>
void read(const Key& key, const Setting& setting, E& to) {
  to = static_cast<E>(read_choice(key, setting));
}
template <Enum E>
std::string print(const Key& key, E value) {
  return split(key.allowed, '|').at(static_cast<std::size_t>(value));
}

/// Unset is "auto".
template <class T>
void read(const Key& key, const Setting& setting, std::optional<T>& to) {
  to.reset();
  if (setting.values != std::vector<std::string>{"auto"}) read(key, setting, to.emplace());
}
template <class T>
std::string print(const Key& key, const std::optional<T>& value) {
  return value ? print(key, *value) : "auto";
}

}  // namespace xdit::config
