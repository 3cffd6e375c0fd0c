#pragma once
#include <cstddef>
#include <nlohmann/json.hpp>

#include "core/json.h"

namespace xdit::text {

/// The largest file that is read: several times a published one. JSON may take twenty times its size in
/// memory.
inline constexpr std::size_t kFileLimit = std::size_t{16} << 20U;

/// A member of `value`, or nullptr when it is no object or has no such member.
[[nodiscard]] inline const Json* find_member(const Json& value, const char* name) {
  if (!value.is_object()) return nullptr;
  const auto at = value.find(name);
  return at == value.end() ? nullptr : &*at;
}

}  // namespace xdit::text
