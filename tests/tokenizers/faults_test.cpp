#include <fmt/format.h>

#include <functional>
#include <random>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "tests/catch.h"
#include "tests/scratch.h"
#include "tests/tokenizers/support.h"

namespace xdit::text::test {
namespace {

namespace fs = std::filesystem;

/// A copy of a good folder that a test spoils.
struct Copy {
  explicit Copy(const std::string& base) { fs::copy(data_folder() / base, folder); }
  tests::Scratch scratch;
  fs::path folder = scratch.path() / "tokenizer";
};

/// Opening must fail as the model's fault, say `what` and name `where`.
void check_fault(const std::string& kind, const fs::path& folder, const std::string& what,
                 const std::string& where) {
  CAPTURE(kind, what, where);
  try {
    static_cast<void>(open(kind, folder));
    FAIL_CHECK("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kModel);
    CHECK_THAT(error.message(), ContainsSubstring(what));
    CHECK_THAT(error.where(), ContainsSubstring(where));
  }
}

struct Fault {
  std::string content, what;
};

void check_file(const std::string& kind, const std::string& base, const std::string& file,
                const std::vector<Fault>& faults) {
  for (const Fault& fault : faults) {
    const Copy copy(base);
    fs::remove(copy.folder / "special_tokens_map.json");  // it would replace what is spoiled
    write(copy.folder / file, fault.content);
    check_fault(kind, copy.folder, fault.what, file);
  }
}

constexpr auto kClip = "flux/tiny-dev/tokenizer";
constexpr auto kClipSingle = "flux/tiny-schnell/tokenizer";
constexpr auto kT5Single = "flux/tiny-dev/tokenizer_2";
constexpr auto kT5 = "flux/tiny-schnell/tokenizer_2";

TEST_CASE("Folders without a tokenizer say what is missing") {
  const tests::Scratch scratch;
  check_fault("clip", scratch.path(), "neither tokenizer.json nor vocab.json with merges.txt",
              scratch.path().string());
  check_fault("t5", scratch.path(), "neither tokenizer.json nor spiece.model", scratch.path().string());
  check_fault("clip", scratch.path() / "absent", "no CLIP tokenizer", "absent");
  fs::create_directory(scratch.path() / "tokenizer.json");
  check_fault("clip", scratch.path(), "not a regular file", "tokenizer.json");
  check_fault("t5", scratch.path(), "not a regular file", "tokenizer.json");
}

TEST_CASE("Huge files are refused before they are read") {
  for (const auto& [kind, base, file] : {std::tuple{"clip", kClip, "vocab.json"},
                                         {"clip", kClip, "merges.txt"},
                                         {"clip", kClipSingle, "tokenizer.json"},
                                         {"t5", kT5Single, "tokenizer.json"},
                                         {"t5", kT5, "spiece.model"},
                                         {"t5", kT5, "tokenizer_config.json"}}) {
    const Copy copy(base);
    fs::resize_file(copy.folder / file, std::uintmax_t{1} << 34U);
    check_fault(kind, copy.folder, "larger than the limit", file);
  }
}

TEST_CASE("Faults of CLIP's vocabulary and merges have a place") {
  const std::string good = R"("<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2)";
  check_file("clip", kClip, "vocab.json",
             {{"", "not valid JSON"},
              {"{" + good, "not valid JSON"},
              {"{" + good + R"(, "b": 2})", "have the same id"},
              {"{" + good + R"(, "a": 3})", "duplicate key"},
              {"{" + good + R"(, "b": -1})", "\"b\" has no id between 0 and 3"},
              {"{" + good + R"(, "b": 4})", "\"b\" has no id between 0 and 3"},
              {"{" + good + R"(, "b": 18446744073709551615})", "has no id between"},
              {"{" + good + R"(, "b": 3.0})", "has no id between"},
              {"{" + good + R"(, "b": "3"})", "has no id between"},
              {"{" + good + R"(, "b": [3]})", "has no id between"},
              {R"(["a", "b"])", "expected a vocabulary"},
              {"{}", "expected a vocabulary"},
              {std::string(100, '['), "nested deeper"},
              {"{" + good + ", \"\xFF\": 3}", "not valid JSON"}});
  {
    const Copy copy(kClip);
    write(copy.folder / "vocab.json", R"({"<|startoftext|>": 0, "a": 1, "b": 2})");
    check_fault("clip", copy.folder, "no \"<|endoftext|>\", its unknown token", "merges.txt");
  }
  check_file("clip", kClip, "merges.txt",
             {{"#version: 0.2\na b c\n", "expected two pieces"},
              {"#version: 0.2\nab\n", "expected two pieces"},
              {"a t\n\na t\n", "expected two pieces"},
              {"#version: 0.2\na \xF0\n", "not UTF-8"},
              {"a qqqq\n", "no \"qqqq\" for merge 1, \"a qqqq\""},
              {"a t\nz z</w>\n", "no \"zz</w>\" for merge 2"}});
  const Copy copy(kClip);
  write(copy.folder / "merges.txt", "#version: 0.2\na t\na  t\n");
  check_fault("clip", copy.folder, "expected two pieces", "merges.txt:3");
}

TEST_CASE("Faults of a tokenizer.json have a place") {
  const std::string clip =
      R"({"model": {"type": "BPE", "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2}, "merges": )";
  check_file(
      "clip", kClipSingle, "tokenizer.json",
      {{"[]", "expected a \"model\" of type BPE"},
       {R"({"model": []})", "expected a \"model\" of type BPE"},
       {R"({"model": {"type": "WordPiece", "vocab": {"a": 0}, "merges": []}})",
        "expected a \"model\" of type BPE"},
       {R"({"model": {"type": 5, "vocab": {"a": 0}, "merges": []}})", "expected a \"model\" of type BPE"},
       {clip + "5}}", "expected a \"model\" of type BPE"},
       {clip + "[5]}}", "expected two pieces"},
       {clip + "[[\"a\"]]}}", "expected two pieces"},
       {clip + "[[\"a\", 1]]}}", "expected two pieces"},
       {clip + "[\"a b c\"]}}", "expected two pieces"},
       {clip + "[\"a b\"]}}", "no \"ab\" for merge 1"}});
  const std::string t5 = R"({"model": {"vocab": [["<pad>", 0], ["</s>", 0], ["<unk>", 0])";
  check_file(
      "t5", kT5Single, "tokenizer.json",
      {{"[]", "expected a \"model\" of type Unigram"},
       {R"({"model": {"vocab": {}}})", "expected a \"model\" of type Unigram"},
       {R"({"model": {"type": "BPE", "vocab": []}})", "expected a \"model\" of type Unigram"},
       {R"({"model": {"vocab": []}})", "<unk> is not among them"},
       {R"({"model": {"vocab": [["a", 0], ["b", 0]]}})", "<unk> is not among them"},
       {t5 + R"(, ["a"]]}})", "expected [\"piece\", score]"},
       {t5 + R"(, ["", 1]]}})", "expected [\"piece\", score]"},
       {t5 + R"(, ["a", "1"]]}})", "expected [\"piece\", score]"},
       {t5 + R"(, [1, 1]]}})", "expected [\"piece\", score]"},
       {t5 + R"(, {"a": 1}]}})", "expected [\"piece\", score]"},
       {t5 + R"(, ["a", 1e999]]}})", "not valid JSON"},
       {t5 + R"(, ["</s>", -1]]}})", "\"</s>\" is piece 1 and piece 3"},
       {t5 + R"(], "unk_id": 0}})", "unk_id is not 2"},
       {t5 + R"(]}, "normalizer": {"type": "Precompiled"}})", "expected \"precompiled_charsmap\""},
       {t5 + R"(]}, "normalizer": {"type": "Precompiled", "precompiled_charsmap": 5}})",
        "expected \"precompiled_"},
       {t5 + R"(]}, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "a"}})", "not base64"},
       {t5 + R"(]}, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "a==="}})", "not base64"},
       {t5 + R"(]}, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "a\u0000aa"}})",
        "not base64"},
       {t5 + R"(]}, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}})",
        "claims a trie of"}});
}

TEST_CASE("Faults of special tokens have a place") {
  check_file("clip", kClip, "tokenizer_config.json",
             {{"[]", "expected an object"},
              {R"({"padding_side": "left"})", "only \"right\""},
              {R"({"truncation_side": 1})", "only \"right\""},
              {R"({"split_special_tokens": true})", "only false"},
              {R"({"eos_token": 5})", "expected a token"},
              {R"({"eos_token": ""})", "expected a token"},
              {R"({"eos_token": null})", "expected a token"},
              {R"({"eos_token": {"lstrip": true}})", "expected a token"},
              {R"({"eos_token": {"content": "x", "lstrip": 1}})", "\"lstrip\" is not true or false"},
              {R"({"eos_token": {"content": "x", "single_word": true}})", "not supported"},
              {R"({"extra_special_tokens": 5})", "expected a list"},
              {R"({"additional_special_tokens": [5]})", "expected a token"},
              {R"({"added_tokens_decoder": []})", "expected an object"},
              {R"({"added_tokens_decoder": {"x": {"content": "a"}}})", "\"x\" is not the id of a token"},
              {R"({"added_tokens_decoder": {"-1": {"content": "a"}}})", "\"-1\" is not the id of a token"},
              {R"({"added_tokens_decoder": {"1": "a"}})", "expected a token"},
              {R"({"added_tokens_decoder": {"1": {}}})", "expected a token"}});
  Json many;
  for (int i = 0; i < 10'001; ++i)
    many["added_tokens_decoder"][std::to_string(i)]["content"] = fmt::format("<{}>", i);
  check_file("clip", kClip, "tokenizer_config.json", {{many.dump(), "more than 10000"}});
  check_file("t5", kT5, "tokenizer_config.json",
             {{R"({"extra_ids": -1})", "expected a whole number"},
              {R"({"extra_ids": 1000000000})", "expected a whole number"}});

  const auto without_config = [](const std::string& base, const std::string& kind, const std::string& file,
                                 const Fault& fault) {
    const Copy copy(base);
    fs::remove(copy.folder / "tokenizer_config.json");
    write(copy.folder / file, fault.content);
    check_fault(kind, copy.folder, fault.what, file);
  };
  without_config(kClip, "clip", "special_tokens_map.json", {"5", "expected an object"});
  without_config(kClip, "clip", "special_tokens_map.json", {R"({"pad_token": ["a"]})", "expected a token"});
  without_config(kClip, "clip", "added_tokens.json", {R"({"a": -1})", "expected the id"});
  without_config(
      kClipSingle, "clip", "tokenizer.json",
      {R"({"model": {"vocab": {"<|endoftext|>": 0}, "merges": []}, "added_tokens": 5})", "expected a list"});
  without_config(
      kClipSingle, "clip", "tokenizer.json",
      {R"({"model": {"vocab": {"<|endoftext|>": 0}, "merges": []}, "added_tokens": [{"content": "x"}]})",
       "expected an \"id\""});
}

TEST_CASE("Spoiled files open or are refused, and never crash") {
  std::mt19937 random(7);
  const auto spoil = [&](const std::string& kind, const std::string& base, const std::string& file,
                         int times) {
    const Copy copy(base);
    const std::string good = read_file(copy.folder / file, ExitCode::kInternal);
    int refused = 0;
    for (int i = 0; i < times; ++i) {
      std::string bad = good;
      for (unsigned flips = 1 + random() % 4; flips-- > 0;)
        bad[random() % bad.size()] = static_cast<char>(random());
      if (i % 8 == 0) bad.resize(random() % bad.size());
      write(copy.folder / file, bad);
      try {
        const auto tokenizer = open(kind, copy.folder);
        static_cast<void>(
            tokenizer->encode("Ｆull ﬁne  Café №5 <|endoftext|> </s> 灯台 🦊\u200d", 12));
      } catch (const Error& error) {
        ++refused;
        if (error.code() != ExitCode::kModel || error.where().find("tokenizer") == std::string::npos) {
          CAPTURE(error.what());
          CHECK(error.code() == ExitCode::kModel);
        }
      }
    }
    CAPTURE(base, file);
    CHECK(refused > times / 10);
  };
  spoil("clip", kClip, "vocab.json", 100);
  spoil("clip", kClip, "merges.txt", 100);
  spoil("clip", kClip, "tokenizer_config.json", 100);
  spoil("clip", kClipSingle, "tokenizer.json", 60);
  spoil("t5", kT5, "spiece.model", 200);
  spoil("t5", kT5, "special_tokens_map.json", 60);
  spoil("t5", kT5Single, "tokenizer.json", 20);
}

}  // namespace
}  // namespace xdit::text::test
