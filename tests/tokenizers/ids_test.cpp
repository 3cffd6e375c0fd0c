#include <fmt/format.h>

#include <chrono>
#include <cstring>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "tests/catch.h"
#include "tests/tokenizers/support.h"

namespace xdit::text::test {
namespace {

using Ids = std::vector<std::int64_t>;

void check_strings(const Tokenizer& tokenizer, const std::string& golden_name) {
  const auto strings = golden_strings();
  const Json expected = golden(golden_name);
  REQUIRE(strings.size() >= 2000);
  REQUIRE(expected.size() == strings.size());
  for (std::size_t i = 0; i < strings.size(); ++i) {
    CAPTURE(i, strings[i]);
    CHECK(tokenizer.ids(strings[i]) == expected[i].get<Ids>());
  }
}

void check_framed(const Tokenizer& tokenizer, const Json& rows) {
  for (const Json& row : rows) {
    const auto ids = row["ids"].get<Ids>();
    const TokenIds result =
        tokenizer.encode(row["prompt"].get<std::string>(), static_cast<std::int64_t>(ids.size()));
    CAPTURE(row["prompt"], ids.size());
    CHECK(result.ids == ids);
    CHECK(result.used == row["used"].get<std::int64_t>());
    CHECK(result.cut == row["cut"].get<std::string>());
  }
}

/// A [B, S] tensor of int64 of a safetensors file.
std::vector<Ids> read_ids(const std::filesystem::path& file, const std::string& name) {
  const std::string bytes = read_file(file, ExitCode::kInternal);
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof size);
  const Json tensor = Json::parse(bytes.substr(8, size)).at(name);
  REQUIRE(tensor["dtype"] == "I64");
  const char* at = bytes.data() + 8 + size + tensor["data_offsets"][0].get<std::size_t>();
  std::vector<Ids> rows(tensor["shape"][0].get<std::size_t>(), Ids(tensor["shape"][1].get<std::size_t>()));
  for (Ids& row : rows) {
    std::memcpy(row.data(), at, row.size() * sizeof row[0]);
    at += row.size() * sizeof row[0];
  }
  return rows;
}

double seconds_of(const Tokenizer& tokenizer, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  CHECK_FALSE(tokenizer.ids(text).empty());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST_CASE("CLIP ids equal transformers' with CLIP's own vocabulary") {
  const auto tokenizer = open("clip", clip_folder());
  CHECK(tokenizer->vocabulary_size() == 49408);
  check_strings(*tokenizer, "ids-clip.json");
  check_framed(*tokenizer, golden("framed-clip.json"));
}

TEST_CASE("T5 ids equal transformers' with a sentencepiece model of every script") {
  const auto tokenizer = open("t5", data_folder() / "tokenizers/t5");
  CHECK(tokenizer->vocabulary_size() == 3100);
  check_strings(*tokenizer, "ids-t5.json");
  check_framed(*tokenizer, golden("framed-t5.json"));
}

TEST_CASE("Every file layout gives transformers' ids") {
  constexpr std::size_t kChunk = 32;
  const auto strings = golden_strings();
  const Json hashes = golden("hashes.json");
  CHECK(hashes.size() == 4);
  for (const auto& [folder, expected] : hashes.items()) {
    const auto tokenizer = open(folder.ends_with("_2") ? "t5" : "clip", data_folder() / folder);
    REQUIRE(expected.size() == (strings.size() + kChunk - 1) / kChunk);
    for (std::size_t chunk = 0; chunk < expected.size(); ++chunk) {
      Hash hash;
      for (std::size_t i = chunk * kChunk; i < std::min(strings.size(), (chunk + 1) * kChunk); ++i)
        hash.add_line(as_text(tokenizer->ids(strings[i])));
      CAPTURE(folder, chunk);
      CHECK(hash.hex() == expected[chunk].get<std::string>());
    }
  }
}

TEST_CASE("Padded and cut prompts are those of the FLUX goldens") {
  const auto flux = data_folder() / "flux";
  std::size_t prompts = 0;
  const Json document = read_json(flux / "cases.json", ExitCode::kInternal);
  for (const Json& run : document["cases"]) {
    if (run["noise_only"].get<bool>()) continue;
    const auto name = run["name"].get<std::string>();
    const auto folder = flux / run["model"].get<std::string>();
    const auto clip = open("clip", folder / "tokenizer");
    const auto t5 = open("t5", folder / "tokenizer_2");
    const auto clip_ids = read_ids(flux / "goldens" / (name + ".safetensors"), "clip_ids");
    const auto t5_ids = read_ids(flux / "goldens" / (name + ".safetensors"), "t5_ids");
    for (std::size_t i = 0; i < clip_ids.size(); ++i, ++prompts) {
      const auto prompt = run["prompts"][i].get<std::string>();
      CAPTURE(name, prompt);
      CHECK(clip->encode(prompt, 77).ids == clip_ids[i]);
      CHECK(t5->encode(prompt, run["max_sequence_length"].get<std::int64_t>()).ids == t5_ids[i]);
    }
  }
  CHECK(prompts >= 15);
}

TEST_CASE("A length without room for the special tokens is refused") {
  const auto clip = open("clip", data_folder() / "flux/tiny-dev/tokenizer");
  const auto t5 = open("t5", data_folder() / "flux/tiny-dev/tokenizer_2");
  CHECK_THROWS_AS(clip->encode("a", 1), Error);
  CHECK_THROWS_AS(t5->encode("a", 0), Error);
  CHECK_THROWS_AS(t5->encode("a", -1), Error);
}

TEST_CASE("Time grows with the length of a word, not with its square") {
  std::string prompt;
  for (int i = 0; i < 40; ++i) prompt += "an old map of an island, drawn in brown ink; ";
  for (const std::string kind : {"clip", "t5"}) {
    const auto tokenizer = open(kind, kind == "clip" ? clip_folder() : data_folder() / "tokenizers/t5");
    CAPTURE(kind);
    // Squared, the long words would take minutes; a prompt takes under a millisecond, and this machine may be
    // busy.
    CHECK(seconds_of(*tokenizer, prompt) < 0.1);
    CHECK(seconds_of(*tokenizer, std::string(300'000, 'a')) < 10);
    std::string word;
    while (word.size() < 300'000) word += "etaoinshrdluéß字";
    CHECK(seconds_of(*tokenizer, word) < 10);
  }
}

}  // namespace
}  // namespace xdit::text::test
