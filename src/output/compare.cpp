#include "output/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "core/file.h"

namespace xdit::output {
namespace {

using Texts = std::map<std::string, std::string>;

// A chunk's text by keyword; that of xdit-gen's own chunk by the names in its JSON, where it is such.
Texts texts_of(const PngText& png) {
  Texts all;
  for (const TextChunk& chunk : png.chunks) {
    const nlohmann::json settings =
        chunk.keyword == "xdit-gen" ? nlohmann::json::parse(chunk.text, nullptr, /*allow_exceptions=*/false)
                                    : nlohmann::json();
    if (settings.is_object())
      for (const auto& [name, value] : settings.items()) all["xdit-gen." + name] = value.dump();
    else
      all[chunk.keyword] += chunk.text;  // a keyword may stand twice
  }
  return all;
}

}  // namespace

PixelDifference compare(const Pixels& a, const Pixels& b) {
  XDIT_ASSERT(a.width == b.width && a.height == b.height);
  const std::int64_t channels = a.opaque && b.opaque ? 3 : 4;
  PixelDifference difference{.pixels = a.width * a.height, .left = a.width, .top = a.height};
  std::int64_t sum = 0;
  std::int64_t squares = 0;
  for (std::int64_t i = 0; i < difference.pixels; ++i) {
    std::int64_t largest = 0;
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto at = static_cast<std::size_t>(i * 4 + c);
      const std::int64_t level = std::abs(a.rgba[at] - b.rgba[at]);
      sum += level;
      squares += level * level;
      largest = std::max(largest, level);
    }
    if (largest == 0) continue;
    const std::int64_t x = i % a.width;
    const std::int64_t y = i / a.width;
    ++difference.differing;
    difference.left = std::min(difference.left, x);
    difference.right = std::max(difference.right, x);
    difference.top = std::min(difference.top, y);
    difference.bottom = y;
    if (largest <= difference.maximum) continue;
    difference.maximum = largest;
    difference.worst = {.x = x, .y = y};
    std::copy_n(&a.rgba[static_cast<std::size_t>(i * 4)], 4, difference.worst.a.begin());
    std::copy_n(&b.rgba[static_cast<std::size_t>(i * 4)], 4, difference.worst.b.begin());
  }
  const auto samples = static_cast<double>(difference.pixels * channels);
  difference.mean = static_cast<double>(sum) / samples;
  difference.psnr_db = squares == 0 ? std::numeric_limits<double>::infinity()
                                    : 10 * std::log10(255.0 * 255.0 * samples / static_cast<double>(squares));
  return difference;
}

TextDifference compare(const PngText& a, const PngText& b) {
  TextDifference difference;
  for (auto& [name, text] : texts_of(a)) difference[name].first = text;
  for (auto& [name, text] : texts_of(b)) difference[name].second = text;
  std::erase_if(difference, [](const auto& entry) { return entry.second.first == entry.second.second; });
  return difference;
}

bool same_bytes(const std::filesystem::path& a, const std::filesystem::path& b, ExitCode code) {
  const File first = File::open_read(a, code);
  const File second = File::open_read(b, code);
  if (first.size() != second.size()) return false;
  constexpr std::size_t kPart = std::size_t{1} << 20U;
  std::vector<std::byte> x(kPart);
  std::vector<std::byte> y(kPart);
  for (std::uint64_t at = 0; at < first.size(); at += kPart) {
    const std::size_t read = first.read_at(x, at);
    if (second.read_at(y, at) != read || std::memcmp(x.data(), y.data(), read) != 0) return false;
  }
  return true;
}

}  // namespace xdit::output
