#include "config/values.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/nearest.h"

namespace xdit::config {
namespace {

constexpr std::size_t kMaxSeeds = 10'000;
constexpr std::size_t kLongestShown = 60;  // bytes of untrusted text in a message

// YAML 1.2's core schema without octal, hexadecimal, signs of plus, inf and nan: no leading zeros, as in
// JSON.
bool is_plain_number(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  const auto digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
  return digit(0) && !(text[0] == '0' && digit(1)) && !text.ends_with('.') &&
         text.find(".e") == std::string_view::npos && text.find(".E") == std::string_view::npos;
}

// The whole text as a T, or nothing.
template <class T>
std::optional<T> parse(std::string_view text) {
  T value{};
  const char* end = text.data() + text.size();
  if (!is_plain_number(text)) return std::nullopt;
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stopped != end) return std::nullopt;
  return value;
}

const std::string& single(const Key& key, const Setting& setting) {
  if (setting.values.size() != 1) refuse(key, setting, fmt::format("{} values", setting.values.size()));
  return setting.values.front();
}

// Lowest and highest of "1..1000", whatever follows.
template <class T>
std::pair<T, T> range(std::string_view allowed) {
  const std::size_t dots = allowed.find("..");
  XDIT_ASSERT(dots != std::string_view::npos);
  std::pair<T, T> limits{};
  std::from_chars(allowed.data(), allowed.data() + dots, limits.first);
  std::from_chars(allowed.data() + dots + 2, allowed.data() + allowed.size(), limits.second);
  return limits;
}

template <class T>
T read_in_range(const Key& key, const Setting& setting) {
  const std::string& text = single(key, setting);
  const std::optional<T> value = parse<T>(text);
  const auto [lowest, highest] = range<T>(key.allowed);
  if (!value || *value < lowest || *value > highest) refuse(key, setting, in_quotes(text));
  return *value;
}

// "all", a count, a list with a comma, or UUIDs.
bool is_device_list(std::string_view text) {
  if (text == "all") return true;
  const auto number = [](std::string_view item, int lowest) {
    const std::optional<int> value = parse<int>(item);
    return value && *value >= lowest && *value <= 1024;
  };
  const auto uuid = [](std::string_view item) {
    return item.starts_with("GPU-") && item.size() > 4 &&
           item.find_first_not_of("0123456789abcdef-", 4) == std::string_view::npos;
  };
  if (text.find(',') == std::string_view::npos) return number(text, 1) || uuid(text);
  if (text.ends_with(',')) text.remove_suffix(1);
  const std::vector<std::string> items = split(text, ',');
  return std::all_of(items.begin(), items.end(),
                     [&](const std::string& item) { return number(item, 0) || uuid(item); });
}

}  // namespace

void refuse(const Key& key, const Setting& setting, const std::string& found, const std::string& value) {
  std::string fix;
  if (!value.empty()) {
    const bool flag = setting.where.starts_with("--") && !setting.where.starts_with("--set");
    const bool assigned = setting.where.starts_with("--set") || setting.where.starts_with("XDIT_GEN_");
    if (assigned)
      fix = setting.where + "=" + value;
    else
      fix = flag ? fmt::format("{} {}", key.flag, value)  // --size is no key's
                 : fmt::format("{}: {}", key.path.substr(key.path.find('.') + 1), value);  // in a file
  }
  throw Error(setting.code,
              fmt::format("{}: expected {}{}{}, found {}", key.path, key.type, key.allowed.empty() ? "" : " ",
                          key.allowed, found),
              setting.where, fix);
}

std::string in_quotes(std::string_view text) {
  std::string shown(text.substr(0, kLongestShown));
  std::replace_if(
      shown.begin(), shown.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return fmt::format("'{}{}'", valid_utf8(shown), text.size() > kLongestShown ? "..." : "");
}

std::string valid_utf8(const std::string& text) {
  using nlohmann::json;
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find(separator, start), text.size());
    parts.emplace_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

std::optional<double> parse_duration(std::string_view text) {
  const std::size_t unit_at = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string_view number = text.substr(0, unit_at);
  const std::string_view unit = text.substr(unit_at);
  const std::optional<double> value = parse<double>(number);
  if (!value) return std::nullopt;
  if (unit == "ms") return *value / 1000;
  if (unit == "s") return value;
  if (unit == "m") return *value * 60;
  if (unit == "h") return *value * 3600;
  return std::nullopt;
}

std::vector<std::uint64_t> read_seeds(const Key& key, const Setting& setting,
                                      const std::function<std::uint64_t()>& draw) {
  std::vector<std::uint64_t> seeds;
  const auto add = [&](std::string_view item) {
    const auto number = [&](std::string_view text) {
      const std::optional<std::uint64_t> value = parse<std::uint64_t>(text);
      if (!value) refuse(key, setting, in_quotes(item));
      return *value;
    };
    const bool drawn = item == "-1";
    const std::size_t dash = std::min(item.find('-'), item.size());
    const std::uint64_t first = drawn ? 0 : number(item.substr(0, dash));
    const std::uint64_t last = drawn || dash == item.size() ? first : number(item.substr(dash + 1));
    if (last < first) refuse(key, setting, in_quotes(item), fmt::format("{}-{}", last, first));
    if (last - first >= kMaxSeeds - seeds.size())
      refuse(key, setting, fmt::format("more than {} seeds", kMaxSeeds));
    if (drawn) seeds.push_back(draw());
    for (std::uint64_t i = 0; !drawn && i <= last - first; ++i) seeds.push_back(first + i);
  };
  for (const std::string& value : setting.values)
    for (const std::string& item : split(value, ',')) add(item);
  if (seeds.empty()) refuse(key, setting, "an empty list");
  return seeds;
}

std::size_t read_choice(const Key& key, const Setting& setting) {
  const std::string& text = single(key, setting);
  const std::vector<std::string> names = split(key.allowed, '|');
  std::string dashed = text;
  std::replace(dashed.begin(), dashed.end(), '_', '-');
  const auto found = std::find(names.begin(), names.end(), dashed);
  if (found == names.end()) refuse(key, setting, in_quotes(text), nearest(text, names));
  return static_cast<std::size_t>(found - names.begin());
}

void read(const Key& key, const Setting& setting, std::int64_t& to) {
  const auto value = read_in_range<std::int64_t>(key, setting);
  if (key.type == kSize && value % 8 != 0)
    refuse(key, setting, in_quotes(single(key, setting)), fmt::format("{}", (value + 4) / 8 * 8));
  to = value;
}

void read(const Key& key, const Setting& setting, double& to) {
  if (key.type == kDuration) {
    const std::optional<double> seconds = parse_duration(single(key, setting));
    if (!seconds || *seconds < 0.001 || *seconds > 86400)
      refuse(key, setting, in_quotes(single(key, setting)));
    to = *seconds;
  } else {
    to = read_in_range<double>(key, setting);
  }
}

void read(const Key& key, const Setting& setting, Extent& to) {
  const std::string& text = single(key, setting);
  const std::vector<std::string> sides = split(text, 'x');
  const auto [lowest, highest] = range<std::int64_t>(key.allowed);
  const auto side = [&, lowest = lowest, highest = highest](const std::string& number) {
    const std::optional<std::int64_t> value = parse<std::int64_t>(number);
    if (!value || *value < lowest || *value > highest) refuse(key, setting, in_quotes(text));
    return *value;
  };
  if (sides.size() != 2) refuse(key, setting, in_quotes(text));
  to = {side(sides[0]), side(sides[1])};
}

void read(const Key& key, const Setting& setting, bool& to) {
  to = read_choice(key, setting) == 0;
}

void read(const Key& key, const Setting& setting, std::string& to) {
  if (key.type == kChoice) {
    to = split(key.allowed, '|').at(read_choice(key, setting));
    return;
  }
  const std::string& text = single(key, setting);
  if (key.type == kDevices && !is_device_list(text)) refuse(key, setting, in_quotes(text));
  to = text;
}

void read(const Key& key, const Setting& setting, std::optional<std::string>& to) {
  to.reset();
  if (!setting.values.empty()) read(key, setting, to.emplace());
}

void read(const Key& key, const Setting& setting, DType& to) {
  const std::optional<DType> dtype = from_flag_name(single(key, setting));
  Setting canonical = setting;  // "bfloat16" is "bf16"
  if (dtype) canonical.values = {std::string(flag_name(*dtype))};
  static_cast<void>(read_choice(key, canonical));
  to = dtype.value();
}

void read(const Key& key, const Setting& setting, std::vector<std::string>& to) {
  if (setting.values.empty()) refuse(key, setting, "an empty list");
  to = setting.values;
}

void read(const Key& key, const Setting& setting, std::vector<std::uint64_t>& to) {
  to = read_seeds(key, setting, [] { return std::uint64_t{0}; });
}

std::string print(const Key& key, std::int64_t value) {
  static_cast<void>(key);
  return fmt::format("{}", value);
}

std::string print(const Key& key, double value) {
  return fmt::format("{}{}", value, key.type == kDuration ? "s" : "");
}

std::string print(const Key& key, const Extent& value) {
  static_cast<void>(key);
  return fmt::format("{}x{}", value.width, value.height);
}

std::string print(const Key& key, bool value) {
  static_cast<void>(key);
  return value ? "true" : "false";
}

std::string print(const Key& key, const std::string& value) {
  using nlohmann::json;  // a JSON string is a double-quoted YAML scalar
  return key.type == kText ? json(value).dump(-1, ' ', false, json::error_handler_t::replace) : value;
}

std::string print(const Key& key, const std::optional<std::string>& value) {
  return value ? print(key, *value) : "null";
}

std::string print(const Key& key, DType value) {
  static_cast<void>(key);
  return std::string(flag_name(value));
}

std::string print(const Key& key, const std::vector<std::string>& value) {
  static_cast<void>(key);
  const Key text{.path = {},
                 .flag = {},
                 .aliases = {},
                 .type = kText,
                 .allowed = {},
                 .meaning = {},
                 .list = false,
                 .set = nullptr,
                 .print = nullptr};
  std::string lines;
  for (const std::string& item : value) lines += "\n  - " + print(text, item);
  return value.size() == 1 ? print(text, value.front()) : lines;
}

std::string print(const Key& key, const std::vector<std::uint64_t>& value) {
  static_cast<void>(key);
  std::vector<std::string> items;
  for (std::size_t i = 0; i < value.size();) {
    std::size_t last = i;
    while (last + 1 < value.size() && value[last] != std::numeric_limits<std::uint64_t>::max() &&
           value[last + 1] == value[last] + 1)
      ++last;
    items.push_back(last == i ? fmt::format("{}", value[i]) : fmt::format("{}-{}", value[i], value[last]));
    i = last + 1;
  }
  return fmt::format("{}", fmt::join(items, ","));
}

}  // namespace xdit::config
