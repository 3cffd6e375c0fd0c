#include "output/png.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#include <stb_image.h>

#include "core/file.h"
#include "tests/catch.h"
#include "tests/output/chunks.h"
#include "tests/scratch.h"

using xdit::Error;
using xdit::ExitCode;
using xdit::output::encode_png;
using xdit::output::PngText;
using xdit::output::TextChunk;
using xdit::tests::chunk;
using xdit::tests::zlib;

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes picture(std::int64_t width, std::int64_t height, unsigned seed) {
  std::mt19937 random(seed);
  Bytes rgb(static_cast<std::size_t>(width * height * 3));
  for (std::size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<std::uint8_t>(i / 50 + random() % 20);
  return rgb;
}

// Pixels by an independent decoder.
Bytes decoded(const std::string& png, std::int64_t width, std::int64_t height) {
  int w = 0;
  int h = 0;
  int channels = 0;
  stbi_uc* pixels = stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(png.data()),
                                          static_cast<int>(png.size()), &w, &h, &channels, 0);
  REQUIRE(pixels != nullptr);
  CHECK(w == width);
  CHECK(h == height);
  CHECK(channels == 3);
  Bytes rgb(pixels, pixels + static_cast<std::size_t>(w) * h * channels);
  stbi_image_free(pixels);
  return rgb;
}

const std::string& plain() {  // 2 x 2, no text
  static const std::string png = encode_png(picture(2, 2, 1), 2, 2);
  return png;
}
std::string with(const std::string& chunks) {
  return plain().substr(0, 33) + chunks + plain().substr(33);
}
std::string header(const std::string& data) {
  return plain().substr(0, 8) + chunk("IHDR", data) + plain().substr(33);
}

PngText read(const std::string& bytes) {
  const xdit::tests::Scratch scratch;
  xdit::write_file_atomically(scratch.path() / "x.png", bytes, false);
  return xdit::output::read_png_text(scratch.path() / "x.png", ExitCode::kUsage);
}

std::string fault(const std::string& bytes) {
  try {
    static_cast<void>(read(bytes));
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kUsage);
    CHECK_THAT(error.where(), ContainsSubstring("x.png"));
    return error.message();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("pixels come back for every shape", "[png]") {
  for (const auto& [width, height] :
       std::vector<std::pair<int, int>>{{1, 1}, {1, 7}, {7, 1}, {16, 16}, {333, 17}}) {
    CAPTURE(width, height);
    const Bytes rgb = picture(width, height, 3);
    const std::string png = encode_png(rgb, width, height);
    CHECK(decoded(png, width, height) == rgb);
    CHECK(png == encode_png(rgb, width, height));
    const PngText text = read(png);
    CHECK(text.width == width);
    CHECK(text.height == height);
    CHECK(text.chunks.empty());
  }
}

TEST_CASE("text comes back, as tEXt for Latin-1 and iTXt for the rest", "[png]") {
  const std::vector<TextChunk> chunks{{"parameters", "a cat\nSteps: 20, caf\u00e9"},
                                      {"xdit-gen", "{\"prompt\": \"\u732b \U0001f600\"}"},
                                      {"Comment", ""},
                                      {"controls", "a\tb\x01\x7f\u0085"},
                                      {std::string(79, 'k'), std::string(100'000, 'x')}};
  const std::string png = encode_png(picture(4, 4, 2), 4, 4, chunks);
  CHECK(read(png).chunks == chunks);
  CHECK(decoded(png, 4, 4) == picture(4, 4, 2));
  CHECK(png.find("tEXtparameters") != std::string::npos);
  CHECK(png.find("caf\xe9") != std::string::npos);
  CHECK(png.find("iTXtxdit-gen") != std::string::npos);
  CHECK(png.find("tEXtComment") != std::string::npos);
  CHECK(png.find("iTXtcontrols") != std::string::npos);
}

TEST_CASE("bad text and bad sizes are defects of the caller", "[png]") {
  const Bytes rgb = picture(1, 1, 1);
  const std::vector<TextChunk> bad{
      {"", "x"}, {std::string(80, 'k'), "x"}, {"\u732b", "x"}, {"k", "\xff"}, {"k", std::string(1, '\0')}};
  for (const TextChunk& one : bad) CHECK_THROWS_AS(encode_png(rgb, 1, 1, std::span(&one, 1)), Error);
  CHECK_THROWS_AS(encode_png(rgb, 2, 1), Error);
  CHECK_THROWS_AS(encode_png(rgb, 0, 1), Error);
  CHECK_THROWS_AS(encode_png(rgb, 30'000, 30'000), Error);
  CHECK_THROWS_AS(encode_png(rgb, INT64_MAX, INT64_MAX), Error);
}

TEST_CASE("text of other programs", "[png]") {
  using namespace std::string_literals;
  const PngText text = read(with(chunk("zTXt", "one\0\0"s + zlib("caf\xe9")) + chunk("tIME", "1234567") +
                                 chunk("iTXt", "two\0\1\0de\0zwei\0"s + zlib("\u732b")) +
                                 chunk("iTXt", "three\0\0\0\0\0drei"s)));
  CHECK(text.chunks == std::vector<TextChunk>{{"one", "caf\u00e9"}, {"two", "\u732b"}, {"three", "drei"}});
}

TEST_CASE("damaged and hostile files are refused with the reason", "[png]") {
  using namespace std::string_literals;
  const std::string size("\0\0\0\2\0\0\0\2", 8);
  const std::string good = size + "\x08\x02\0\0\0"s;
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "ends too early"},
      {"GIF89a..............", "not a PNG"},
      {plain().substr(0, 20), "longer than the file"},
      {plain() + "x", "after the end"},
      {with(chunk("IHDR", good)), "IHDR must be the first"},
      {plain().substr(0, 8) + plain().substr(33), "IHDR must be the first"},
      {plain().substr(0, 33) + chunk("IEND", ""), "without pixels"},
      {plain().substr(0, 33) + chunk("IDAT", "x"), "ends too early"},
      {header(good.substr(0, 12)), "13 bytes"},
      {header("\0\0\0\0"s + good.substr(4)), "sides must be"},
      {header("\0\1\0\0"s + good.substr(4)), "sides must be"},
      {header(size + "\x07\x02\0\0\0"s), "colour type"},
      {header(size + "\x08\x05\0\0\0"s), "colour type"},
      {header(size + "\x08\xff\0\0\0"s), "colour type"},
      {header(size + "\x08\x02\0\0\x02"s), "interlace"},
      {with("\xff\xff\xff\xfftEXt"), "longer than the file"},
      {with("\0\0\0\0"
            "1234"
            "abcd"s),
       "no chunk type"},
      {with(chunk("tEXt", "no end")), "ends too early"},
      {with(chunk("tEXt", "\0x"s)), "keyword"},
      {with(chunk("tEXt", std::string(80, 'k') + "\0x"s)), "keyword"},
      {with(chunk("tEXt", "k\0a\0b"s)), "NUL"},
      {with(chunk("iTXt", "k\0\0\0\0\0\xff"s)), "not UTF-8"},
      {with(chunk("iTXt", "k\0\0\0\0\0a\0b"s)), "NUL"},
      {with(chunk("iTXt", "k\0\2\0\0\0x"s)), "compression method"},
      {with(chunk("iTXt", "k\0"s)), "ends too early"},
      {with(chunk("zTXt", "k\0"s)), "compression method"},
      {with(chunk("zTXt", "k\0\0garbage"s)), "damaged"},
      {with(chunk("zTXt", "k\0\0"s + zlib(std::string(40U << 20U, 'x')))), "bytes of text"},
      {with(chunk("tEXt", "k\0"s + std::string(9U << 20U, 'x')) +
            chunk("tEXt", "k\0"s + std::string(9U << 20U, 'x'))),
       "the limit is"},
  };
  for (const auto& [bytes, reason] : cases) {
    CAPTURE(bytes.substr(0, 80), reason);
    CHECK_THAT(fault(bytes), ContainsSubstring(reason));
  }
  std::string many;
  for (int i = 0; i < 65; ++i) many += chunk("tEXt", "k\0v"s);
  CHECK_THAT(fault(with(many)), ContainsSubstring("more than 64 text chunks"));
}

TEST_CASE("the time of a picture of 1024 x 1024, encoded and written", "[.bench]") {
  constexpr std::int64_t kSide = 1024;
  Bytes drawn(kSide * kSide * 3);  // flat areas, soft edges
  for (std::int64_t i = 0; i < std::ssize(drawn); ++i) {
    const auto x = static_cast<double>(i / 3 % kSide - kSide / 2),
               y = static_cast<double>(i / 3 / kSide - kSide / 2);
    const double inside = std::clamp((300 - std::hypot(x, y)) / 8, 0.0, 1.0);
    drawn[static_cast<std::size_t>(i)] =
        static_cast<std::uint8_t>(255 - inside * static_cast<double>(80 + 60 * (i % 3)));
  }
  Bytes noise(drawn.size());
  std::mt19937 random(1);
  std::generate(noise.begin(), noise.end(), [&] { return static_cast<std::uint8_t>(random()); });
  const xdit::tests::Scratch scratch;
  for (const auto& [name, rgb] : {std::pair{"drawn", &drawn}, {"noise", &noise}, {"both", nullptr}}) {
    Bytes grainy = drawn;
    for (std::size_t i = 0; i < grainy.size(); ++i)
      grainy[i] = static_cast<std::uint8_t>(grainy[i] ^ (noise[i] & 7U));
    double least_ms = 1e9, written_ms = 1e9;
    std::size_t bytes = 0;
    for (int i = 0; i < 7; ++i) {
      using Clock = std::chrono::steady_clock;
      const auto ms = [from = Clock::now()] {
        return std::chrono::duration<double, std::milli>(Clock::now() - from).count();
      };
      const std::string png = encode_png(rgb != nullptr ? *rgb : grainy, kSide, kSide);
      least_ms = std::min(least_ms, ms());
      std::ofstream(scratch.path() / name, std::ios::binary) << png;  // not synced: that is the disk's time
      written_ms = std::min(written_ms, ms());
      bytes = png.size();
    }
    std::printf("%s: encoded %.1f ms, and written %.1f ms, %.2f MB\n", name, least_ms, written_ms,
                static_cast<double>(bytes) / 1e6);
  }
}

TEST_CASE("every flipped bit and every cut is found", "[png]") {
  const TextChunk text{"k", "value"};
  const std::string good = encode_png(picture(2, 2, 1), 2, 2, std::span(&text, 1));
  REQUIRE(fault(good) == "nothing");
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    CAPTURE(i);
    CHECK(fault(bad) != "nothing");
    CHECK(fault(good.substr(0, i)) != "nothing");
  }
}
