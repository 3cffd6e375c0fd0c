#include "cli/batch_places.h"

#include <algorithm>
#include <random>
#include <set>

#include "tests/catch.h"

namespace xdit::cli {
namespace {

// Places of lines that are told by a letter; a digit behind it is for how many pictures, 1 without. Pictures
// of `made` are there.
std::vector<std::size_t> places(const std::string& lines, const std::string& known,
                                const std::string& made = {}) {
  const auto all = [](const std::string& text) {
    std::vector<output::Manifest::Place> places;
    for (const char c : text) {
      if (c >= '1' && c <= '9')
        places.back().pictures = c - '0';
      else
        places.push_back({.mark = std::string(1, c), .pictures = 1});
    }
    return places;
  };
  std::vector<bool> there;
  for (const output::Manifest::Place& place : all(known))
    there.push_back(made.find(place.mark) != std::string::npos);
  return places_of(all(lines), all(known), there);
}

using Places = std::vector<std::size_t>;

}  // namespace

TEST_CASE("lines keep their places when others go, come or change") {
  CHECK(places("abc", "") == Places{0, 1, 2});
  CHECK(places("abc", "abc") == Places{0, 1, 2});
  CHECK(places("abcde", "abc") == Places{0, 1, 2, 3, 4});
  CHECK(places("ac", "abc") == Places{0, 2});
  CHECK(places("bc", "abc") == Places{1, 2});
  CHECK(places("ab", "abc") == Places{0, 1});
  CHECK(places("", "abc").empty());
  CHECK(places("axc", "abc") == Places{0, 1, 2});         // mended
  CHECK(places("axc", "abc", "abc") == Places{0, 3, 2});  // its picture was made: that stays
  CHECK(places("acd", "abc", "b") == Places{0, 2, 3});
  CHECK(places("axbc", "abc") == Places{0, 3, 1, 2});
  CHECK(places("xabc", "abc") == Places{3, 0, 1, 2});
  CHECK(places("acxyz", "abcde") == Places{0, 2, 3, 4, 5});
  CHECK(places("axe", "abcde") == Places{0, 1, 4});
  CHECK(places("axe", "abcde", "abc") == Places{0, 3, 4});
  CHECK(places("acxeyz", "abcdefg") == Places{0, 2, 3, 4, 5, 6});
  CHECK(places("axyzc", "abc") == Places{0, 1, 3, 4, 2});
  CHECK(places("cab", "abc") == Places{2, 0, 1});  // moved
  CHECK(places("badc", "abcd", "abcd") == Places{1, 0, 3, 2});
  CHECK(places("dxba", "abcd") == Places{3, 4, 1, 0});
  CHECK(places("aaxa", "abaca") == Places{0, 2, 3, 4});
  CHECK(places("aaaa", "aaabaa") == Places{0, 1, 2, 5});
  CHECK(places("xbcabxab", "abcabcab") == Places{0, 1, 2, 3, 4, 5, 6, 7});  // also where lines come twice
  CHECK(places("bcabcb", "abcabcab") == Places{1, 2, 3, 4, 5, 7});
}

TEST_CASE("a changed line takes the place of another only for as many pictures") {
  CHECK(places("ax2c", "abc") == Places{0, 3, 2});
  CHECK(places("axc", "ab3c") == Places{0, 3, 2});
  CHECK(places("ax3c", "ab3c") == Places{0, 1, 2});
  CHECK(places("ax3c", "ab3c", "b") == Places{0, 3, 2});
  CHECK(places("ax2yc", "abc") == Places{0, 3, 1, 2});
  CHECK(places("ab2c", "abc") == Places{0, 3, 2});  // also where its flags changed
}

TEST_CASE("lines that stand in a file often are kept, at no more cost than others") {
  const auto often = [](const std::string& first, std::size_t count, const std::string& last) {
    return first + std::string(count, 'a') + last;
  };
  for (const std::size_t count : {65U, 100'000U}) {
    const Places kept = places(often("", count, ""), often("x", count, "y"), "axy");
    REQUIRE(kept.size() == count);
    for (std::size_t i = 0; i < count; ++i) REQUIRE(kept[i] == i + 1);
  }
}

TEST_CASE("no two lines have one place, and as many stay as are in both files") {
  std::mt19937 draw(1);
  const auto text = [&] {
    std::string all(draw() % 9, ' ');
    for (char& letter : all) letter = static_cast<char>('a' + draw() % 4);
    return all;
  };
  for (int i = 0; i < 3000; ++i) {
    const std::string lines = text(), known = text(), made = text();
    CAPTURE(lines, known, made);
    const Places at = places(lines, known, made);
    CHECK(std::set(at.begin(), at.end()).size() == lines.size());
    for (const char letter : std::string("abcd")) {
      std::ptrdiff_t stay = 0;
      for (std::size_t line = 0; line < lines.size(); ++line)
        if (lines[line] == letter && at[line] < known.size() && known[at[line]] == letter) ++stay;
      CHECK(stay == std::min(std::count(lines.begin(), lines.end(), letter),
                             std::count(known.begin(), known.end(), letter)));
    }
  }
}

TEST_CASE("a line is told by what it sets, not by where it stands") {
  const auto marks = [](const std::string& text) {
    std::vector<std::string> all;
    for (const config::BatchLine& line : config::read_batch(text, "f", config::BatchFormat::kJsonl))
      all.push_back(mark_of(line));
    return all;
  };
  const std::vector<std::string> one =
      marks("{\"prompt\": \"a\", \"seed\": 1}\n{\"prompt\": \"a\"}\n{\"prompt\": \"a1\"}\n{\n");
  const std::vector<std::string> moved = marks("\n{\"prompt\": \"a\", \"seed\": 1}\n\n\"a\"\n\"a1\"\n{\n");
  CHECK(one == moved);
  for (std::size_t i = 1; i < one.size(); ++i) CHECK(one[i] != one[i - 1]);
}

}  // namespace xdit::cli
