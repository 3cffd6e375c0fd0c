#include "output/compare.h"

#include <cmath>

#include "core/file.h"
#include "tests/catch.h"
#include "tests/output/chunks.h"
#include "tests/scratch.h"

using namespace std::string_literals;
using xdit::Error;
using xdit::ExitCode;
using xdit::output::encode_png;
using xdit::output::PixelDifference;
using xdit::output::Pixels;
using xdit::output::TextChunk;
using xdit::tests::chunk;
using xdit::tests::zlib;

namespace {

Pixels read(const std::string& bytes) {
  const xdit::tests::Scratch scratch;
  xdit::write_file_atomically(scratch.path() / "x.png", bytes, false);
  return xdit::output::read_png_pixels(scratch.path() / "x.png", ExitCode::kUsage);
}

// A PNG from its IHDR after the size, and its rows with a filter byte each.
std::string png(int width, int height, const std::string& header, const std::string& rows,
                const std::string& chunks = {}) {
  const auto number = [](int value) {
    return "\0\0"s + static_cast<char>(value >> 8) + static_cast<char>(value);
  };
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", number(width) + number(height) + header) + chunks +
         chunk("IDAT", zlib(rows)) + chunk("IEND", "");
}

std::string fault(const std::string& bytes) {
  try {
    static_cast<void>(read(bytes));
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kUsage);
    return error.message();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("pixels of every kind of PNG", "[compare]") {
  using Bytes = std::vector<std::uint8_t>;
  const std::vector<std::uint8_t> rgb{1, 2, 3, 4, 5, 6};
  const Pixels ours = read(encode_png(rgb, 2, 1));
  CHECK(ours.opaque);
  CHECK(ours.rgba == Bytes{1, 2, 3, 255, 4, 5, 6, 255});
  const Pixels alpha = read(png(1, 2, "\10\6\0\0\0"s, "\0\1\2\3\4\0\5\6\7\10"s));
  CHECK_FALSE(alpha.opaque);
  CHECK(alpha.rgba == Bytes{1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(read(png(2, 1, "\1\0\0\0\0"s, "\0\x40"s)).rgba == Bytes{0, 0, 0, 255, 255, 255, 255, 255});
  const std::string palette = chunk("PLTE", "\1\2\3\4\5\6"s);
  CHECK(read(png(2, 1, "\10\3\0\0\0"s, "\0\1\0"s, palette)).rgba == Bytes{4, 5, 6, 255, 1, 2, 3, 255});
  CHECK_FALSE(read(png(2, 1, "\10\3\0\0\0"s, "\0\1\0"s, palette + chunk("tRNS", "\0\1"s))).opaque);
}

TEST_CASE("pictures that are not decoded", "[compare]") {
  CHECK_THAT(fault(png(1, 1, "\20\2\0\0\0"s, "\0\1\1\2\2\3\3"s)), ContainsSubstring("16 bits"));
  CHECK_THAT(fault(png(65535, 65535, "\10\2\0\0\0"s, "\0"s)), ContainsSubstring("128 megapixels"));
  CHECK_THAT(fault(png(11585, 11585, "\10\2\0\0\0"s, "\0"s)), ContainsSubstring("not enough pixels"));
  CHECK(fault(png(2, 1, "\10\3\0\0\0"s, "\0\1\0"s)) != "nothing");     // no palette
  CHECK(fault(png(1, 1, "\10\2\0\0\0"s, "\11\1\2\3"s)) != "nothing");  // no such filter
}

TEST_CASE("a difference has a size and a place", "[compare]") {
  Pixels a{.width = 5, .height = 4, .rgba = std::vector<std::uint8_t>(80, 100)};
  Pixels b = a;
  CHECK(compare(a, b).maximum == 0);
  CHECK(std::isinf(compare(a, b).psnr_db));
  const auto at = [](int x, int y, int channel) {
    return static_cast<std::size_t>((y * 5 + x) * 4 + channel);
  };
  b.rgba[at(3, 1, 0)] = 103;
  b.rgba[at(1, 2, 2)] = 90;
  b.rgba[at(1, 2, 1)] = 101;
  b.rgba[at(2, 3, 0)] = 110;
  b.rgba[at(0, 0, 3)] = 0;  // alpha of opaque pictures says nothing
  for (const auto& [x, y] : {std::pair{a, b}, std::pair{b, a}}) {
    const PixelDifference difference = compare(x, y);
    CHECK(difference.maximum == 10);
    CHECK(difference.pixels == 20);
    CHECK(difference.differing == 3);
    CHECK(std::abs(difference.mean - 24.0 / 60) < 1e-12);
    CHECK(std::abs(difference.psnr_db - 10 * std::log10(255.0 * 255 * 60 / 210)) < 1e-9);
    CHECK(std::array{difference.left, difference.top, difference.right, difference.bottom} ==
          std::array<std::int64_t, 4>{1, 1, 3, 3});
    CHECK(difference.worst.x == 1);
    CHECK(difference.worst.y == 2);
    CHECK(difference.worst.a[2] == x.rgba[at(1, 2, 2)]);
    CHECK(difference.worst.b[2] == y.rgba[at(1, 2, 2)]);
  }
  a.opaque = false;
  CHECK(compare(a, b).maximum == 100);
}

TEST_CASE("texts differ by keyword, and our own by setting", "[compare]") {
  const auto text = [](std::vector<TextChunk> chunks) {
    return xdit::output::PngText{.width = 1, .height = 1, .chunks = std::move(chunks)};
  };
  const auto difference =
      compare(text({{"xdit-gen", R"({"seed": 1, "steps": 4})"}, {"Comment", "x"}, {"k", "v"}}),
              text({{"k", "v"}, {"xdit-gen", R"({"seed": 2, "steps": 4, "sigmas": "karras"})"}}));
  REQUIRE(difference.size() == 3);
  CHECK(difference.at("Comment") == std::pair{std::optional("x"s), std::optional<std::string>()});
  CHECK(difference.at("xdit-gen.seed") == std::pair{std::optional("1"s), std::optional("2"s)});
  CHECK(difference.at("xdit-gen.sigmas").second == "\"karras\"");
  CHECK(compare(text({{"xdit-gen", "{torn"}}), text({{"xdit-gen", "{torn"}})).empty());
}
