#include <fmt/format.h>
#include <libdeflate.h>

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <string_view>

#include "core/file.h"
#include "output/png.h"
#include "output/unicode.h"

namespace xdit::output {
namespace {

constexpr std::size_t kMaxText = std::size_t{16} << 20U;  // of all text chunks together, unpacked
constexpr std::size_t kMaxTextChunks = 64;
constexpr std::size_t kMaxChunks = 1'000'000;
constexpr std::uint32_t kMaxSide = 65535;
// Bit depths that each colour type allows.
constexpr std::array<std::string_view, 7> kDepths{"\1\2\4\10\20", "", "\10\20", "\1\2\4\10",
                                                  "\10\20",       "", "\10\20"};

std::uint32_t big_endian(std::string_view bytes) {
  std::uint32_t value = 0;
  for (const char byte : bytes.substr(0, 4)) value = value << 8U | static_cast<unsigned char>(byte);
  return value;
}

class Reader {
 public:
  Reader(const std::filesystem::path& path, ExitCode code)
      : path_(path), code_(code), file_(File::open_read(path, code)), size_(file_.size()) {}

  PngText read() {
    if (take(8) != std::string_view("\x89PNG\r\n\x1a\n", 8)) refuse("not a PNG file");
    bool pixels = false;
    for (std::size_t chunks = 0;; ++chunks) {
      if (chunks == kMaxChunks) refuse(fmt::format("more than {} chunks", kMaxChunks));
      const std::string head = take(8);
      const std::size_t length = big_endian(head);
      const std::string type = head.substr(4);
      if (!std::all_of(type.begin(), type.end(),
                       [](char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }))
        refuse(fmt::format("no chunk type where one must stand (byte {})", at_ - 4));
      if (length > 0x7fffffff || length > size_ - at_) refuse(type + ": the chunk is longer than the file");
      if ((chunks == 0) != (type == "IHDR")) refuse("IHDR must be the first chunk, and the only one");
      if (type == "IDAT") pixels = true;
      if (type == "IEND" && (length != 0 || !pixels)) refuse("IEND without pixels before it");
      if (type == "IHDR") {
        header(checked(type, length, 13));
      } else if (type == "tEXt" || type == "zTXt" || type == "iTXt") {
        text(type, checked(type, length, text_left_));
      } else {
        skip(type, length);
      }
      if (type == "IEND") break;
    }
    if (at_ != size_) refuse(fmt::format("{} bytes after the end of the picture", size_ - at_));
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(code_, "bad PNG: " + why, path_.string());
  }

  std::string take(std::size_t count) {
    std::string bytes(count, '\0');
    if (file_.read_at(std::as_writable_bytes(std::span(bytes)), at_) != count)
      refuse("the file ends too early");
    at_ += count;
    return bytes;
  }

  void check(const std::string& type, std::uint32_t crc) {
    if (big_endian(take(4)) != crc) refuse(type + ": wrong checksum");
  }

  std::string checked(const std::string& type, std::size_t length, std::size_t limit) {
    if (length > limit) refuse(fmt::format("{}: {} bytes, the limit is {}", type, length, limit));
    const std::string body = type + take(length);
    check(type, libdeflate_crc32(0, body.data(), body.size()));
    return body.substr(4);
  }

  void skip(const std::string& type, std::size_t length) {
    std::uint32_t crc = libdeflate_crc32(0, type.data(), type.size());
    while (length > 0) {
      const std::string part = take(std::min<std::size_t>(length, 64U << 10U));
      crc = libdeflate_crc32(crc, part.data(), part.size());
      length -= part.size();
    }
    check(type, crc);
  }

  void header(const std::string& body) {
    if (body.size() != 13) refuse("IHDR must have 13 bytes");
    const std::uint32_t width = big_endian(body);
    const std::uint32_t height = big_endian(std::string_view(body).substr(4));
    if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide)
      refuse(fmt::format("{} x {} pixels: sides must be in 1..{}", width, height, kMaxSide));
    const auto colour = static_cast<unsigned char>(body[9]);
    if (colour >= kDepths.size() || kDepths.at(colour).find(body[8]) == std::string_view::npos)
      refuse("IHDR: no such colour type and bit depth");
    if (body[10] != 0 || body[11] != 0 || (body[12] != 0 && body[12] != 1))
      refuse("IHDR: no such compression, filter or interlace method");
    result_.width = width;
    result_.height = height;
  }

  void text(const std::string& type, std::string_view body) {
    if (result_.chunks.size() == kMaxTextChunks)
      refuse(fmt::format("more than {} text chunks", kMaxTextChunks));
    const std::string_view keyword = field(type, body);
    if (keyword.empty() || keyword.size() > 79) refuse(type + ": the keyword must have 1 to 79 characters");
    std::string text;
    if (type == "iTXt") {
      if (body.size() < 2) refuse("iTXt: it ends too early");
      const bool packed = body[0] == 1;
      if ((!packed && body[0] != 0) || body[1] != 0) refuse("iTXt: no such compression method");
      body.remove_prefix(2);
      static_cast<void>(field(type, body));  // language
      static_cast<void>(field(type, body));  // translated keyword
      text = packed ? unpacked(type, body) : std::string(body);
      if (!code_points(text)) refuse("iTXt: not UTF-8");
      if (text.find('\0') != std::string::npos) refuse("iTXt: a NUL in the text");
    } else if (type == "zTXt") {
      if (body.empty() || body[0] != 0) refuse("zTXt: no such compression method");
      text = from_latin1(type, unpacked(type, body.substr(1)));
    } else {
      text = from_latin1(type, body);
    }
    if (text.size() > text_left_) refuse(fmt::format("more than {} bytes of text", kMaxText));
    text_left_ -= text.size();
    result_.chunks.push_back({from_latin1(type, keyword), std::move(text)});
  }

  // Bytes up to the next NUL, which `body` then loses with them.
  std::string_view field(const std::string& type, std::string_view& body) const {
    const std::size_t end = body.find('\0');
    if (end == std::string_view::npos) refuse(type + ": it ends too early");
    const std::string_view value = body.substr(0, end);
    body.remove_prefix(end + 1);
    return value;
  }

  std::string from_latin1(const std::string& type, std::string_view bytes) const {
    if (bytes.find('\0') != std::string_view::npos) refuse(type + ": a NUL in the text");
    std::u32string text;
    for (const char byte : bytes) text += static_cast<unsigned char>(byte);
    return to_utf8(text);
  }

  std::string unpacked(const std::string& type, std::string_view packed) const {
    const std::unique_ptr<libdeflate_decompressor, void (*)(libdeflate_decompressor*)> decompressor(
        libdeflate_alloc_decompressor(), libdeflate_free_decompressor);
    if (!decompressor) throw std::bad_alloc();
    std::string bytes;
    std::size_t size = 0;
    libdeflate_result result = LIBDEFLATE_INSUFFICIENT_SPACE;
    for (std::size_t room = 4096; result == LIBDEFLATE_INSUFFICIENT_SPACE && bytes.size() < text_left_;
         room *= 4) {
      bytes.resize(std::min(room, text_left_));
      result = libdeflate_zlib_decompress(decompressor.get(), packed.data(), packed.size(), bytes.data(),
                                          bytes.size(), &size);
    }
    if (result == LIBDEFLATE_INSUFFICIENT_SPACE) refuse(fmt::format("more than {} bytes of text", kMaxText));
    if (result != LIBDEFLATE_SUCCESS) refuse(type + ": the compressed text is damaged");
    bytes.resize(size);
    return bytes;
  }

  const std::filesystem::path& path_;
  ExitCode code_;
  File file_;
  std::uint64_t size_;
  std::uint64_t at_ = 0;
  std::size_t text_left_ = kMaxText;
  PngText result_;
};

}  // namespace

PngText read_png_text(const std::filesystem::path& path, ExitCode code) {
  return Reader(path, code).read();
}

}  // namespace xdit::output
