#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"

namespace xdit::output {

/// A text chunk of a PNG. The text is UTF-8 here, whatever the file holds.
struct TextChunk {
  std::string keyword;  ///< 1..79 characters of printable Latin-1, as UTF-8
  std::string text;     ///< no NUL
  bool operator==(const TextChunk&) const = default;
};

/// An 8-bit RGB picture ([height, width, 3], row-major) as the bytes of a PNG file; the text stands before
/// the pixels. Latin-1 text goes into tEXt, anything else into iTXt. Same input, same bytes. 1024 x 1024
/// takes 20-35 ms on one core. Throws Error(kOutput) for pictures of 2 GiB and more.
[[nodiscard]] std::string encode_png(std::span<const std::uint8_t> rgb, std::int64_t width,
                                     std::int64_t height, std::span<const TextChunk> text = {});

/// What a PNG says about itself, without its pixels.
struct PngText {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::vector<TextChunk> chunks;  ///< tEXt, zTXt and iTXt, in file order
};

/// Reads an untrusted PNG strictly: signature, chunk order and checksums to the last byte; 65,535 pixels a
/// side, 64 text chunks of 16 MiB together (unpacked), 64 KiB buffers for the rest. Every fault throws
/// `code`.
[[nodiscard]] PngText read_png_text(const std::filesystem::path& path, ExitCode code);

/// The pixels of a PNG.
struct Pixels {
  std::int64_t width = 0;
  std::int64_t height = 0;
  bool opaque = true;              ///< the file holds no transparency
  std::vector<std::uint8_t> rgba;  ///< [height, width, 4], row-major
};

/// Decodes an untrusted PNG of 8 bits a channel or fewer, which read_png_text finds sound, of at most 128
/// megapixels; no buffer grows over 2 GiB, whatever the file says. Every fault throws `code`.
[[nodiscard]] Pixels read_png_pixels(const std::filesystem::path& path, ExitCode code);

}  // namespace xdit::output
