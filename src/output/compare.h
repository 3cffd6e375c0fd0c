#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "output/png.h"

namespace xdit::output {

/// How far two pictures of one size are apart, in levels (0..255) over red, green and blue, and alpha where
/// one has it.
struct PixelDifference {
  struct Worst {
    std::int64_t x = 0, y = 0;
    std::array<std::uint8_t, 4> a{}, b{};  ///< RGBA of the first pixel that holds the largest difference
  };
  std::int64_t maximum = 0;  ///< 0: equal
  double mean = 0;
  double psnr_db = 0;  ///< infinite for equal pictures
  std::int64_t pixels = 0;
  std::int64_t differing = 0;                               ///< pixels
  std::int64_t left = 0, top = 0, right = -1, bottom = -1;  ///< the box around these, inclusive
  Worst worst = {};
};
/// Of two pictures of one size.
[[nodiscard]] PixelDifference compare(const Pixels& a, const Pixels& b);

/// Texts that are not the same in both, by keyword; those of xdit-gen's own chunk by setting, as
/// "xdit-gen.seed". Unset: not there.
using TextDifference =
    std::map<std::string, std::pair<std::optional<std::string>, std::optional<std::string>>>;
[[nodiscard]] TextDifference compare(const PngText& a, const PngText& b);

/// Whether two files hold the same bytes. Faults are Error(code).
[[nodiscard]] bool same_bytes(const std::filesystem::path& a, const std::filesystem::path& b, ExitCode code);

}  // namespace xdit::output
