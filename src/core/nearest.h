#pragma once
#include <span>
#include <string>
#include <string_view>

namespace xdit {

/// The candidate with the smallest edit distance to `word`, or "" when none is near (more than a third away).
[[nodiscard]] std::string nearest(std::string_view word, std::span<const std::string> candidates);

/// "did you mean X? (one of: A, B, C)" without the first part when nothing is near.
[[nodiscard]] std::string suggest(std::string_view word, std::span<const std::string> candidates);

}  // namespace xdit
