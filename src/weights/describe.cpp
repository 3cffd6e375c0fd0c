#include "weights/describe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "core/error.h"

namespace xdit::weights {

std::string name_text(std::string_view name) {
  constexpr std::size_t kLongest = 200;
  std::string text = "\"";
  for (const char c : name.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e)  // a terminal must not obey a file
      text += fmt::format("\\x{:02x}", byte);
    else
      text += c;
  }
  return text + (name.size() > kLongest ? "...\"" : "\"");
}

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void fail_model(const std::filesystem::path& where, std::string message, std::string fix) {
  throw Error(ExitCode::kModel, std::move(message), where.string(), std::move(fix));
}

}  // namespace xdit::weights
