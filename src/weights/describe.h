#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace xdit::weights {

/// A name from a file, for errors: in quotes, printable ASCII, shortened.
[[nodiscard]] std::string name_text(std::string_view name);

/// "[3, 4]"
[[nodiscard]] std::string shape_text(std::span<const std::int64_t> shape);

/// Throws Error(kModel) about a file or folder.
[[noreturn]] void fail_model(const std::filesystem::path& where, std::string message, std::string fix = {});

}  // namespace xdit::weights
