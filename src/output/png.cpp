#include "output/png.h"

#include <fmt/format.h>
#include <libdeflate.h>

#include <algorithm>
#include <climits>

#include "output/stb.h"
#include "output/unicode.h"

namespace xdit::output {
namespace {

constexpr std::size_t kHeader = 8 + 25;   // bytes of signature and IHDR
constexpr std::int64_t kSlack = 1 << 20;  // filter bytes and deflate's worst case

std::string big_endian(std::size_t value) {
  std::string bytes(4, '\0');
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<char>(value >> (24 - 8 * i));
  return bytes;
}

// Printable Latin-1 and the newline: what the PNG specification recommends for tEXt.
bool is_latin1(const std::u32string& text) {
  return std::all_of(text.begin(), text.end(), [](char32_t c) {
    return c == '\n' || (c >= 0x20 && c <= 0x7e) || (c >= 0xa0 && c <= 0xff);
  });
}

std::string to_latin1(const std::u32string& text) {
  std::string bytes;
  for (const char32_t c : text) bytes += static_cast<char>(c);
  return bytes;
}

// A whole chunk: length, type, data, checksum of type and data.
std::string text_chunk(const TextChunk& chunk) {
  using namespace std::string_literals;
  const std::optional<std::u32string> keyword = code_points(chunk.keyword);
  const std::optional<std::u32string> text = code_points(chunk.text);
  XDIT_ASSERT(keyword && !keyword->empty() && keyword->size() < 80 && is_latin1(*keyword));
  XDIT_ASSERT(text && text->find(U'\0') == std::u32string::npos);
  // iTXt: not compressed, method 0, no language, no translated keyword.
  const std::string body = is_latin1(*text) ? "tEXt" + to_latin1(*keyword) + '\0' + to_latin1(*text)
                                            : "iTXt" + to_latin1(*keyword) + "\0\0\0\0\0"s + chunk.text;
  return big_endian(body.size() - 4) + body + big_endian(libdeflate_crc32(0, body.data(), body.size()));
}

}  // namespace

std::string encode_png(std::span<const std::uint8_t> rgb, std::int64_t width, std::int64_t height,
                       std::span<const TextChunk> text) {
  XDIT_ASSERT(width > 0 && height > 0);
  if (width > INT_MAX / 4 || (width * 3 + 1) > (INT_MAX - kSlack) / height)
    throw Error(ExitCode::kOutput, fmt::format("{} x {} pixels do not fit a PNG of 2 GiB", width, height));
  XDIT_ASSERT(rgb.size() == static_cast<std::size_t>(width * height * 3));

  const std::string png = stb_png(rgb, static_cast<int>(width), static_cast<int>(height));
  if (png.empty())
    throw Error(ExitCode::kOutput, fmt::format("out of memory for a PNG of {} x {} pixels", width, height));
  std::string file = png.substr(0, kHeader);
  for (const TextChunk& chunk : text) file += text_chunk(chunk);
  return file.append(png, kHeader);
}

}  // namespace xdit::output
