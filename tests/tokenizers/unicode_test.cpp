#include "text/tokenizer/unicode.h"

#include <array>

#include "core/file.h"
#include "tests/catch.h"
#include "tests/tokenizers/support.h"
#include "text/tokenizer/charsmap.h"
#include "text/tokenizer/spiece.h"

namespace xdit::text::test {
namespace {

/// Each code point of a block in a context, where "{}" stands for it.
template <typename Visit>
void for_each_text(std::size_t block, const std::string& context, Visit&& visit) {
  constexpr char32_t kBlock = 256;
  for (auto c = static_cast<char32_t>(block) * kBlock; c < static_cast<char32_t>(block + 1) * kBlock; ++c) {
    std::string point;
    append_utf8(point, c);
    std::string text = context;
    for (std::size_t at = text.find("{}"); at != std::string::npos; at = text.find("{}", at + point.size()))
      text.replace(at, 2, point);
    visit(text);
  }
}

std::string spaced(std::string_view text) {  // CLIP's \s+ -> " "
  std::string result;
  bool before = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const bool space = is_space(next_code_point(text, at));
    if (!space) result += text.substr(begin, at - begin);
    if (space && !before) result += ' ';
    before = space;
  }
  return result;
}

TEST_CASE("Every code point is normalised as transformers does it, among marks, ligatures and emoji") {
  const auto rows = golden("blocks.json");
  const auto spiece = data_folder() / "tokenizers/t5/spiece.model";
  const Charsmap charsmap(
      parse_sentencepiece(read_file(spiece, ExitCode::kInternal), spiece.string()).charsmap, "");
  const auto contexts = rows["contexts"].get<std::vector<std::string>>();
  REQUIRE(rows["blocks"].size() > 800);
  for (std::size_t i = 0; i < rows["blocks"].size(); ++i) {
    const auto block = rows["blocks"][i].get<std::size_t>();
    Hash clip;
    Hash t5;
    for (const std::string& context : contexts)
      for_each_text(block, context, [&](const std::string& text) {
        clip.add_line(lower(spaced(nfc(text))));
        t5.add_line(charsmap.normalize(text));
      });
    CAPTURE(block);
    CHECK(clip.hex() == rows["clip_normalizer"][i].get<std::string>());
    CHECK(t5.hex() == rows["t5_normalizer"][i].get<std::string>());
  }
}

TEST_CASE("Every code point is a letter, a number, a space or another one, as transformers has it") {
  const auto rows = golden("blocks.json");
  const auto tokenizer = open("clip", clip_folder());
  for (std::size_t i = 0; i < rows["blocks"].size(); ++i) {
    const auto block = rows["blocks"][i].get<std::size_t>();
    Hash hash;
    for_each_text(block, "{}a{}1{} {}",
                  [&](const std::string& text) { hash.add_line(as_text(tokenizer->ids(text))); });
    CAPTURE(block);
    CHECK(hash.hex() == rows["clip_ids"][i].get<std::string>());
  }
}

TEST_CASE("Ill-formed UTF-8 is replaced as Python does it") {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  struct Sample {
    std::string_view bytes;
    int replacements;
  };
  // Python: len(bytes.decode("utf-8", "replace"))
  const std::array samples = {
      Sample{"\xFF", 1},         Sample{"\xC3", 1},         Sample{"\xC0\xAF", 2},
      Sample{"\xE2\x82", 1},     Sample{"\xED\xA0\x80", 3}, Sample{"\xF0\x9F\x92", 1},
      Sample{"\xF4\x90\x80", 3}, Sample{"\xE0\x80\x80", 3}, Sample{"\xF1\x80\x80", 1},
      Sample{"\xF1\x80\xE1", 2}, Sample{"\x80\x80", 2},     Sample{"\xF8\x88\x80\x80\x80", 5},
  };
  for (const Sample& sample : samples) {
    std::string expected = "a";
    for (int i = 0; i < sample.replacements; ++i) expected += kReplacement;
    CHECK(valid_utf8("a" + std::string(sample.bytes) + "z") == expected + "z");
    CHECK(valid_utf8("a" + std::string(sample.bytes)) == expected);
  }
  CHECK(valid_utf8("é字🦊") == "é字🦊");
}

}  // namespace
}  // namespace xdit::text::test
