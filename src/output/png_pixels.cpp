#include <fmt/format.h>

#include "core/file.h"
#include "output/png.h"
#include "output/stb.h"

namespace xdit::output {
namespace {

constexpr std::int64_t kMaxPixels = std::int64_t{1} << 27U;
constexpr std::size_t kMaxFile = 1U << 30U;

}  // namespace

Pixels read_png_pixels(const std::filesystem::path& path, ExitCode code) {
  const auto refuse = [&](const std::string& why) { throw Error(code, "bad PNG: " + why, path.string()); };
  const PngText head = read_png_text(path, code);
  if (head.width * head.height > kMaxPixels)
    refuse(fmt::format("{} x {} pixels: {} megapixels at most are decoded", head.width, head.height,
                       kMaxPixels >> 20U));
  const StbPixels decoded = stb_pixels(read_file(path, code, kMaxFile));
  if (!decoded.rgba) refuse(decoded.fault);
  if (decoded.width != head.width || decoded.height != head.height) refuse("it changed while it was read");
  const std::uint8_t* first = decoded.rgba.get();
  return {.width = head.width,
          .height = head.height,
          .opaque = decoded.channels % 2 == 1,
          .rgba = {first, first + head.width * head.height * 4}};
}

}  // namespace xdit::output
