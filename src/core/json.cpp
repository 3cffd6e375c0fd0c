#include "core/json.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace xdit {
namespace {

constexpr int kMaxDepth = 64;

// `text` with null for the numbers that Python's json writes and JSON has no spelling for.
std::string without_infinities(std::string text) {
  constexpr std::array<std::string_view, 3> kNumbers{"-Infinity", "Infinity", "NaN"};
  bool quoted = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '"') quoted = !quoted;
    if (quoted && text[at] == '\\') ++at;  // what is escaped ends nothing
    if (quoted || std::string_view("-IN").find(text[at]) == std::string_view::npos) continue;
    for (const std::string_view number : kNumbers)
      if (text.compare(at, number.size(), number) == 0) text.replace(at, number.size(), "null");
  }
  return text;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, ExitCode code) {
  std::vector<std::set<std::string>> keys;  // of each open object
  const auto refuse = [&](const std::string& why) -> bool { throw Error(code, why, where); };
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) refuse("JSON is nested deeper than 64");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      refuse(fmt::format("duplicate key \"{}\"", value.get<std::string>()));
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& error) {
    std::string why = error.what();
    why.erase(0, why.find("] ") + 2);  // the library's own name of the fault
    if (const std::size_t at = why.find("line 1, ");
        at != std::string::npos && text.find('\n') == std::string::npos)
      why.erase(at, 8);  // `where` tells which line it is
    throw Error(code, "not valid JSON: " + why, where);
  }
}

Json read_json(const std::filesystem::path& path, ExitCode code, std::size_t limit) {
  return parse_json(without_infinities(read_file(path, code, limit)), path.string(), code);
}

std::int64_t integer_of(const Json& json) {
  if (!json.is_number_integer() || (json.is_number_unsigned() && json.get<std::uint64_t>() > INT64_MAX))
    throw Json::type_error::create(
        302, fmt::format("expected a 64-bit integer, found a {}", json.type_name()), &json);
  return json.get<std::int64_t>();
}

std::string text_at(const Json& json, const char* key) {
  const auto at = json.find(key);
  return at != json.end() && at->is_string() ? at->get<std::string>() : "";
}

}  // namespace xdit
