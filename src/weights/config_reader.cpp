#include "weights/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace xdit::weights {
namespace {

constexpr std::int64_t kLargestSize = std::int64_t{1} << 24U;
constexpr std::int64_t kLargestCount = 1024;  // ten times a published one; a list of parameters stays small

bool is_size(const nlohmann::json& value) {
  return value.is_number_integer() && value >= 1 && value <= kLargestSize;
}

}  // namespace

const nlohmann::json* ConfigReader::find(const char* key) const {
  const auto found = config_.find(key);
  return found == config_.end() || found->is_null() ? nullptr : &*found;
}

void ConfigReader::refuse(const char* key, const std::string& expected) const {
  const nlohmann::json* value = find(key);
  const std::string found = value == nullptr ? "nothing" : value->dump().substr(0, 80);
  throw Error(ExitCode::kModel, fmt::format("{}: expected {}, found {}", key, expected, found), where_);
}

std::int64_t ConfigReader::at_most(std::int64_t limit, const char* key,
                                   std::optional<std::int64_t> otherwise) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  if (value == nullptr || !is_size(*value) || *value > limit)
    refuse(key, fmt::format("an integer 1..{}", limit));
  return value->get<std::int64_t>();
}

std::int64_t ConfigReader::size(const char* key, std::optional<std::int64_t> otherwise) const {
  return at_most(kLargestSize, key, otherwise);
}

std::int64_t ConfigReader::count(const char* key, std::optional<std::int64_t> otherwise) const {
  return at_most(kLargestCount, key, otherwise);
}

std::vector<std::int64_t> ConfigReader::sizes(const char* key,
                                              std::optional<std::vector<std::int64_t>> otherwise) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  const bool fits = value != nullptr && value->is_array() && !value->empty() && value->size() <= 64 &&
                    std::all_of(value->begin(), value->end(), is_size);
  if (!fits) refuse(key, fmt::format("a list of integers 1..{}", kLargestSize));
  return value->get<std::vector<std::int64_t>>();
}

std::int64_t ConfigReader::integer(const char* key, std::int64_t otherwise) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_number_integer()) refuse(key, "an integer");
  return value->get<std::int64_t>();
}

double ConfigReader::number(const char* key, double otherwise) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_number()) refuse(key, "a number");
  return value->get<double>();
}

bool ConfigReader::boolean(const char* key, bool otherwise) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) refuse(key, "true or false");
  return value->get<bool>();
}

std::string ConfigReader::text(const char* key, const std::string& otherwise) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) refuse(key, "text");
  return value->get<std::string>();
}

}  // namespace xdit::weights
