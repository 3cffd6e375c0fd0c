#include <fmt/format.h>

#include <chrono>
#include <random>

#include "config/yaml.h"
#include "tests/catch.h"
#include "tests/config/support.h"

namespace xdit::config {
namespace {

std::string repeat(const std::string& text, std::size_t bytes) {
  std::string all;
  while (all.size() + text.size() <= bytes) all += text;
  return all;
}

}  // namespace

TEST_CASE("limits on depth and nodes") {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']');
  };
  CHECK_NOTHROW(parse_yaml(nested(32), "y", ExitCode::kProfile));
  CHECK_THROWS_WITH(parse_yaml(nested(33), "y", ExitCode::kProfile), ContainsSubstring("deeper than 32"));
  CHECK_NOTHROW(parse_yaml(repeat("- a\n", std::size_t{9'999} * 4), "y", ExitCode::kProfile));
  CHECK_THROWS_WITH(parse_yaml(repeat("- a\n", std::size_t{10'000} * 4), "y", ExitCode::kProfile),
                    ContainsSubstring("10,000"));
}

TEST_CASE("a quarter megabyte of anything ends soon, with a value or an Error") {
  // clang-format off
  const std::vector<std::string> units{
      "[", "{", "- ", "? ", ": ", "a: ", "[a, ", "{a: ", "&a ", "*a ", "!a ", "'", "\"", "\\", "|\n", "> ", "\n", "#\n",
      " ", "\t", "a", "a\n", "]", "}", ",", "[]", "{}", "--- ", "...\n", "%A b\n", "%TAG ! !\n", "- - ", "a: b\n",
      "\r", "\r\n", "? a\n", "\"a\\n", "[a]: ", "{a}: ", "!<a> ", "''", "<<: ", "\xF0\x9F\xA6\x8A", "a:\n ", "- a\n",
      " - a\n", "[?", "{?", "{[", "{a,", "[:", "@", "`", "0", "- |\n a\n"};
  // clang-format on
  for (const std::string& unit : units)
    for (const char* before : {"", "prompt: \"", "sampling: {"}) {
      CAPTURE(unit, before);
      const auto start = std::chrono::steady_clock::now();
      try {
        static_cast<void>(parse_yaml(before + repeat(unit, 1U << 18U), "y", ExitCode::kProfile));
      } catch (const Error& error) {
        CHECK(error.code() == ExitCode::kProfile);
        CHECK(std::string(error.what()).size() < 1000);
      }
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      CHECK(seconds.count() < 5);
    }
}

TEST_CASE("mutations of a good profile end with a value or an Error") {
  const std::string good =
      "model: {path: m, dtype: bf16}\nprompt:\n  - a fox\n  - \"b \\u00e9\"\nimage: {width: 1024}\n"
      "sampling:\n  steps: 28 # few\n  seed: [1, 2-4]\noutput: {path: 'out/{seed}.png'}\nruntime: {timeout: "
      "60s}\n";
  const std::string alphabet = "[]{}:,-?&*!|>'\"%@` \n\t#\\a0\xC3\xA9\x04\xFF.~<";
  std::mt19937 random(11);  // NOLINT: the same mutations every time
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = good;
    for (unsigned n = 1 + random() % 4; n > 0; --n) {
      const std::size_t at = random() % text.size();
      const char c = alphabet[random() % alphabet.size()];
      if (random() % 3 == 0)
        text.insert(at, 1, c);
      else if (random() % 2 == 0)
        text.erase(at, 1 + random() % 5);
      else
        text[at] = c;
      if (text.empty()) text += ' ';
    }
    try {
      static_cast<void>(parse_yaml(text, "y", ExitCode::kProfile));
      ++accepted;
    } catch (const Error& error) {
      if (error.code() != ExitCode::kProfile) FAIL(error.what());
    }
  }
  CHECK(accepted > 1000);
  CHECK(accepted < 19'000);
}

}  // namespace xdit::config
