#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "core/error.h"

namespace xdit {

using Json = nlohmann::json;

/// Parses untrusted JSON: UTF-8, no duplicate keys, depth <= 64, nothing after the value.
/// `where` names the source in errors; `code` is the exit code of a fault.
[[nodiscard]] Json parse_json(std::string_view text, const std::string& where, ExitCode code);

/// Reads and parses a file of at most `limit` bytes. Infinity, -Infinity and NaN, which Python writes, are
/// null.
[[nodiscard]] Json read_json(const std::filesystem::path& path, ExitCode code,
                             std::size_t limit = 64U << 20U);

/// The integer in `json`, within std::int64_t; throws Json::exception for any other value, a number with a
/// fraction or an exponent among them (which Json::get would convert, whatever its size).
[[nodiscard]] std::int64_t integer_of(const Json& json);

/// The text at `key`, or "" where there is none.
[[nodiscard]] std::string text_at(const Json& json, const char* key);

}  // namespace xdit
