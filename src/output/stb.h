#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace xdit::output {

/// A PNG without text, by stb_image_write over libdeflate; empty when memory runs out. `width` x 3 x `height`
/// < 2^31.
[[nodiscard]] std::string stb_png(std::span<const std::uint8_t> rgb, int width, int height);

}  // namespace xdit::output
