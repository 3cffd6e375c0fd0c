#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace xdit::output {

/// A PNG without text, by stb_image_write over libdeflate; empty when memory runs out. `width` x 3 x `height`
/// < 2^31.
[[nodiscard]] std::string stb_png(std::span<const std::uint8_t> rgb, int width, int height);

/// Decoded pixels, [height, width, 4].
struct StbPixels {
  std::unique_ptr<std::uint8_t, void (*)(void*)> rgba;  ///< null: `fault` says why
  const char* fault = "";
  int width = 0;
  int height = 0;
  int channels = 0;  ///< of the file
};

/// Decodes a PNG of at most 8 bits a channel and 2^31 - 1 bytes.
[[nodiscard]] StbPixels stb_pixels(std::string_view png);

}  // namespace xdit::output
