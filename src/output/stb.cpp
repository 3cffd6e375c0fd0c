// The implementations of stb_image_write, with libdeflate in the places that it leaves open, and stb_image.
#include "output/stb.h"

#include <libdeflate.h>

#include <climits>
#include <cstdlib>
#include <memory>

namespace {

// Level 1 takes 10-35 ms for 1024 x 1024; levels 2 and 6 take 1.5 to 4 times as long for 5-12 % less.
[[maybe_unused]] unsigned char* compress(unsigned char* data, int size, int* compressed_size,
                                         int /*quality*/) {
  const std::unique_ptr<libdeflate_compressor, void (*)(libdeflate_compressor*)> compressor(
      libdeflate_alloc_compressor(1), libdeflate_free_compressor);
  if (!compressor) return nullptr;
  const std::size_t bound = libdeflate_zlib_compress_bound(compressor.get(), static_cast<std::size_t>(size));
  if (bound > INT_MAX - 1024) return nullptr;
  auto* compressed = static_cast<unsigned char*>(std::malloc(bound));
  if (compressed == nullptr) return nullptr;
  *compressed_size = static_cast<int>(
      libdeflate_zlib_compress(compressor.get(), data, static_cast<std::size_t>(size), compressed, bound));
  return compressed;
}

constexpr std::size_t kMaxBuffer = INT_MAX;  // a few bytes of a zlib stream can ask for gigabytes

[[maybe_unused]] void* bounded_realloc(void* buffer, std::size_t size) {
  return size > kMaxBuffer ? nullptr : std::realloc(buffer, size);
}

}  // namespace

#define STBIW_ZLIB_COMPRESS compress
#define STBIW_CRC32(bytes, size) libdeflate_crc32(0, bytes, static_cast<std::size_t>(size))
#define STBI_WRITE_NO_STDIO
#ifndef __clang_analyzer__  // which has complaints about stb
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_IMPLEMENTATION
#endif
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_MALLOC(size) bounded_realloc(nullptr, size)
#define STBI_REALLOC(buffer, size) bounded_realloc(buffer, size)
#define STBI_FREE(buffer) std::free(buffer)
#include <stb_image.h>
#include <stb_image_write.h>

namespace {

// The Average filter on every row: as small as stb's search over five filters (20-30 ms a megapixel), in 2
// ms.
[[maybe_unused]] const int kAverageFilter = stbi_write_force_png_filter = 3;

}  // namespace

namespace xdit::output {

std::string stb_png(std::span<const std::uint8_t> rgb, int width, int height) {
  std::string png;
  const auto keep = [](void* to, void* bytes, int size) {
    static_cast<std::string*>(to)->assign(static_cast<const char*>(bytes), static_cast<std::size_t>(size));
  };
  stbi_write_png_to_func(keep, &png, width, height, 3, rgb.data(), width * 3);
  return png;
}

StbPixels stb_pixels(std::string_view png) {
  StbPixels pixels{.rgba = {nullptr, stbi_image_free}};
  const auto* bytes = reinterpret_cast<const stbi_uc*>(png.data());
  const int size = static_cast<int>(png.size());
  if (stbi_is_16_bit_from_memory(bytes, size) != 0) {
    pixels.fault = "16 bits a channel: 8 at most are read";
    return pixels;
  }
  pixels.rgba.reset(
      stbi_load_from_memory(bytes, size, &pixels.width, &pixels.height, &pixels.channels, STBI_rgb_alpha));
  if (!pixels.rgba) pixels.fault = stbi_failure_reason();
  return pixels;
}

}  // namespace xdit::output
