#include <fmt/format.h>

#include <bit>
#include <functional>
#include <limits>

#include "core/error.h"
#include "tests/catch.h"
#include "tests/tokenizers/support.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/charsmap.h"
#include "text/tokenizer/prefix_trie.h"
#include "text/tokenizer/spiece.h"
#include "text/tokenizer/unigram.h"

namespace xdit::text::test {
namespace {

using Ids = std::vector<std::int64_t>;

std::string little_endian(std::uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xFFU);
  return bytes;
}

/// A charsmap of these units and replacements.
std::string charsmap_blob(const std::vector<std::uint32_t>& units, const std::string& replacements) {
  std::string blob = little_endian(static_cast<std::uint32_t>(4 * units.size()));
  for (const std::uint32_t unit : units) blob += little_endian(unit);
  return blob + replacements;
}

/// Units that rewrite "a" as the replacement at `offset`: the root's children from 256, the value of "a" at
/// 512.
std::vector<std::uint32_t> units_for_a(std::uint32_t offset) {
  std::vector<std::uint32_t> units(1024);
  units[0] = 256U << 10U;
  units[256 ^ 'a'] = 'a' | 1U << 8U | (256U ^ 'a' ^ 512U) << 10U;
  units[512] = 1U << 31U | offset;
  return units;
}

void check_fault(const std::function<void()>& act, const std::string& what) {
  CAPTURE(what);
  try {
    act();
    FAIL_CHECK("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kModel);
    CHECK_THAT(error.message(), ContainsSubstring(what));
    CHECK(error.where() == "file");
  }
}

/// Protocol buffers, by hand.
std::string field(int number, int wire, const std::string& payload) {
  const int tag = number << 3 | wire;
  return (tag < 128 ? std::string{static_cast<char>(tag)}
                    : std::string{static_cast<char>(tag | 128), static_cast<char>(tag >> 7)}) +
         payload;
}
std::string bytes_field(int number, const std::string& bytes) {
  return field(number, 2, std::string{static_cast<char>(bytes.size())} + bytes);
}
std::string piece(const std::string& text, float score) {
  return bytes_field(1,
                     bytes_field(1, text) + field(2, 5, little_endian(std::bit_cast<std::uint32_t>(score))));
}

TEST_CASE("A prefix trie finds every key that begins a text, and the last of equal ones") {
  const PrefixTrie trie({{"a", 0}, {"abc", 1}, {"ab", 2}, {"b", 3}, {"abc", 4}, {"\xFF", 5}});
  std::vector<std::pair<std::size_t, std::int32_t>> found;
  const auto collect = [&](std::size_t length, std::int32_t value) { found.emplace_back(length, value); };
  trie.for_each_prefix("abcd", collect);
  CHECK(found == std::vector<std::pair<std::size_t, std::int32_t>>{{1, 0}, {2, 2}, {3, 4}});
  found.clear();
  trie.for_each_prefix("\xFF", collect);
  trie.for_each_prefix("", collect);
  trie.for_each_prefix("cab", collect);
  CHECK(found == std::vector<std::pair<std::size_t, std::int32_t>>{{1, 5}});
  found.clear();
  PrefixTrie().for_each_prefix("abc", collect);
  CHECK(found.empty());
}

TEST_CASE("Unigram takes the likeliest pieces and joins unknown code points") {
  const std::vector<std::string> pieces = {"<unk>", "a", "b", "ab", "abc", "é", "xy"};
  const Unigram model(pieces, {0, -1, -1, -1.5, -9, -2, -50}, 0);
  const auto ids = [&](std::string_view text) {
    Ids result;
    model.encode(text, result);
    return result;
  };
  CHECK(ids("abab") == Ids{3, 3});
  CHECK(ids("abc") == Ids{4});  // abc -9, ab and <unk> -61.5
  CHECK(ids("a??éb?") == Ids{1, 0, 5, 2, 0});
  CHECK(ids("字字") == Ids{0});
  CHECK(ids("xy") == Ids{6});
  CHECK(ids("<unk>?") == Ids{0});
  CHECK(ids("").empty());
}

TEST_CASE("BPE merges in the order of the merges, from the left") {
  const std::vector<std::string> pieces = {"<e>", "a",  "b",       "a</w>", "b</w>",
                                           "ab",  "aa", "aab</w>", "ab</w>"};
  PieceIds index;
  for (const std::string& p : pieces) index.emplace(p, static_cast<std::int32_t>(index.size()));
  const std::vector<Bpe::Merge> merges = {{"a", "a"}, {"a", "b</w>"}, {"aa", "b</w>"}, {"a", "b"}};
  const Bpe bpe(index, merges, "<e>", "file");
  const auto ids = [&](std::string_view word) {
    Ids result;
    bpe.encode(word, result);
    return result;
  };
  CHECK(ids("aab") == Ids{7});
  CHECK(ids("ab") == Ids{8});
  CHECK(ids("aaab") == Ids{6, 8});
  CHECK(ids("aba") == Ids{5, 3});
  CHECK(ids("a?b") == Ids{1, 0, 4});
  CHECK(Bpe::bytes_of("Ġa</w>") == " a</w>");
  CHECK(Bpe::bytes_of("Ã©") == "é");
  CHECK(Bpe::bytes_of("字") == "字");
  check_fault([&] { Bpe(index, {{"b", "b"}}, "<e>", "file"); }, "no \"bb\" for merge 1");
  check_fault([&] { Bpe(index, {}, "<x>", "file"); }, "no \"<x>\", its unknown token");
}

TEST_CASE("A precompiled normaliser rewrites short graphemes whole") {
  const Charsmap map(charsmap_blob(units_for_a(2), std::string("x\0yz\0", 5)), "file");
  CHECK(map.normalize("abA a") == "yzbA yz");
  CHECK(map.normalize("a\u0301b") == "yzb");  // one grapheme: the accent is lost
  CHECK(map.normalize("a\u0301\u0302\u0303b") == "yz\u0301\u0302\u0303b");  // too long for that
  CHECK(map.normalize(std::string("\0a\0", 3)) == std::string("\0yz\0", 4));
  CHECK(Charsmap().normalize("a\u0301") == "a\u0301");
}

TEST_CASE("A spoiled precompiled normaliser is refused") {
  const auto construct = [](const std::string& blob) {
    return [blob] { static_cast<void>(Charsmap(blob, "file")); };
  };
  const auto normalize = [](const std::string& blob) {
    return [blob] { static_cast<void>(Charsmap(blob, "file").normalize("a")); };
  };
  check_fault(construct(""), "claims a trie of 0");
  check_fault(construct("abc"), "claims a trie of 0");
  check_fault(construct(little_endian(0) + "x"), "claims a trie of 0");
  check_fault(construct(little_endian(6) + "abcdef"), "claims a trie of 6");
  check_fault(construct(little_endian(8) + "abcd"), "claims a trie of 8");
  check_fault(construct(little_endian(0xFFFFFFFC) + "abcd"), "claims a trie of 4294967292");
  check_fault(construct(charsmap_blob({0}, "\xFF")), "not UTF-8");
  check_fault(normalize(charsmap_blob({256U << 10U}, "")), "points outside itself");
  check_fault(normalize(charsmap_blob({0xFFFFFFFF}, "")), "points outside itself");
  check_fault(normalize(charsmap_blob(units_for_a(9), std::string("yz\0", 3))), "no replacement at 9");
  check_fault(normalize(charsmap_blob(units_for_a(1), std::string("é\0", 3))), "no replacement at 1");
  CHECK(Charsmap(charsmap_blob(units_for_a(3), std::string("yz\0", 3)), "file").normalize("ab") == "b");

  // A trie that leads from "a" back to its root: it ends with the text.
  std::vector<std::uint32_t> cyclic(512);
  cyclic[0] = 256U << 10U;
  cyclic[256 ^ 'a'] = 'a' | ('a') << 10U;
  const std::string text(100'000, 'a');
  CHECK(Charsmap(charsmap_blob(cyclic, "x"), "file").normalize(text) == text);
}

TEST_CASE("A sentencepiece model is read strictly") {
  const std::string trainer = bytes_field(2, field(3, 0, "\x01") + field(40, 0, "\x02"));
  const std::string normalizer = bytes_field(3, bytes_field(1, "nmt_nfkc") + bytes_field(2, "blob"));
  const auto model = parse_sentencepiece(
      piece("a", -1.5F) + trainer + piece("▁b", 0) + normalizer + field(9, 1, "12345678"), "file");
  REQUIRE(model.pieces.size() == 2);
  CHECK(model.pieces[0].text == "a");
  CHECK(model.pieces[0].score == -1.5);
  CHECK(model.pieces[1].text == "▁b");
  CHECK(model.model_type == SentencePieceModel::kUnigram);
  CHECK(model.unknown == 2);
  CHECK(model.charsmap == "blob");
  CHECK(parse_sentencepiece("", "file").pieces.empty());

  const auto parse = [](const std::string& bytes) {
    return [bytes] { static_cast<void>(parse_sentencepiece(bytes, "file")); };
  };
  const std::string good = piece("a", 0);
  for (std::size_t size = 1; size < good.size(); ++size)
    check_fault(parse(good.substr(0, size)), "longer than its message before byte");
  check_fault(parse(field(0, 0, "\x01")), "field number 0");
  check_fault(parse(field(1, 3, "")), "wire type 3");
  check_fault(parse(field(1, 7, "")), "wire type 7");
  check_fault(parse(field(1, 0, "\x01")), "field 1 has wire type 0");
  check_fault(parse(field(5, 0, std::string(10, '\x80'))), "more than 64 bits");
  check_fault(parse(field(5, 2, std::string(9, '\xFF') + "\x01")), "longer than its message");
  check_fault(parse(bytes_field(1, "")), "an empty piece");
  check_fault(parse(piece("\xFF", 0)), "not UTF-8");
  check_fault(parse(piece("a", std::numeric_limits<float>::quiet_NaN())), "not finite");
  check_fault(parse(piece("a", std::numeric_limits<float>::infinity())), "not finite");
  check_fault(parse(bytes_field(1, bytes_field(1, "a") + field(2, 0, "\x01"))), "field 2 has wire type 0");
  check_fault(parse(bytes_field(3, field(2, 0, "\x01"))), "field 2 has wire type 0");
}

TEST_CASE("Added tokens are the leftmost and longest, with their spaces") {
  const AddedTokens tokens(
      {{.content = "<a>"},
       {.content = "<a><b>"},
       {.content = "<l>", .left_strip = true},
       {.content = "<r>", .right_strip = true},
       {.content = "N", .normalized = true},
       {.content = "known"}},
      {100,
       [](std::string_view piece) {
         return piece == "known" ? std::optional<std::int64_t>(7) : std::nullopt;
       },
       [](std::string_view text) { return text == "N" ? std::string("n") : std::string(text); }});
  CHECK(tokens.vocabulary_size() == 105);
  CHECK(tokens.id_of("known") == 7);
  CHECK(tokens.id_of("N") == 104);
  CHECK_FALSE(tokens.id_of("n").has_value());
  const auto show = [&](std::string_view text, bool normalized) {
    std::string shown;
    for (const auto& part : tokens.split(text, normalized))
      shown += fmt::format("[{}|{}]", part.text, part.id);
    return shown;
  };
  CHECK(show("x<a><b>y<a>known", false) == "[x|-1][<a><b>|101][y|-1][<a>|100][known|7]");
  CHECK(show("x \t<l> y <r>\u3000\n z <r> <l>", false) ==
        "[x|-1][ \t<l>|102][ y |-1][<r>\u3000\n |103][z |-1][<r> |103][<l>|102]");
  CHECK(show("N n <a>", false) == "[N n |-1][<a>|100]");
  CHECK(show("N n <a>", true) == "[N |-1][n|104][ <a>|-1]");
  CHECK(show("", false).empty());
}

}  // namespace
}  // namespace xdit::text::test
