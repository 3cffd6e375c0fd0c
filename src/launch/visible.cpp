#include "launch/visible.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

namespace xdit::launch {
namespace {

constexpr std::string_view kUuid = "GPU-";

// As strtoul, which takes "1st" for 1.
std::optional<std::size_t> numbered(const std::vector<parallel::Gpu>& all, std::string_view name) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  return error == std::errc{} && number < all.size() ? std::optional(number) : std::nullopt;
}

std::optional<std::size_t> named(const std::vector<parallel::Gpu>& all, std::string_view name) {
  const auto begins = [&](const parallel::Gpu& gpu) { return gpu.uuid.starts_with(name); };
  if (!name.starts_with(kUuid) || std::count_if(all.begin(), all.end(), begins) != 1) return std::nullopt;
  return static_cast<std::size_t>(std::find_if(all.begin(), all.end(), begins) - all.begin());
}

}  // namespace

std::vector<parallel::Gpu> visible_gpus(const std::vector<parallel::Gpu>& all, std::string_view names) {
  std::vector<parallel::Gpu> chosen;
  std::set<std::size_t> taken;
  const auto trimmed = [](std::string_view name) {
    name.remove_prefix(std::min(name.find_first_not_of(' '), name.size()));
    return name.substr(0, name.find_last_not_of(' ') + 1);
  };
  const bool by_uuid = trimmed(names).starts_with(kUuid);
  for (std::size_t at = 0; at <= names.size();) {
    const std::size_t comma = std::min(names.find(',', at), names.size());
    const std::string_view name = trimmed(names.substr(at, comma - at));
    const std::optional<std::size_t> number = by_uuid ? named(all, name) : numbered(all, name);
    if (!number) break;
    if (!taken.insert(*number).second) return {};
    chosen.push_back(all[*number]);
    at = comma + 1;
  }
  return chosen;
}

}  // namespace xdit::launch
