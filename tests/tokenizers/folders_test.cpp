#include <fmt/format.h>

#include "core/json.h"
#include "tests/catch.h"
#include "tests/scratch.h"
#include "tests/tokenizers/support.h"

namespace xdit::text::test {
namespace {

TEST_CASE("Special and added tokens of older and newer folders are transformers'") {
  const auto folders = golden("folders.json");
  CHECK(folders.size() >= 15);
  for (const Json& folder : folders) {
    const tests::Scratch scratch;
    const auto path = scratch.path() / "tokenizer";
    std::filesystem::copy(data_folder() / folder["base"].get<std::string>(), path);
    for (const auto& [name, value] : folder["files"].items())
      value.is_null() ? static_cast<void>(std::filesystem::remove(path / name))
                      : write(path / name, value.dump());
    CAPTURE(folder["name"]);
    const auto tokenizer = open(folder["kind"].get<std::string>(), path);
    CHECK(tokenizer->vocabulary_size() == folder["size"].get<std::int64_t>());
    for (const Json& prompt : folder["prompts"]) {
      CAPTURE(prompt[0]);
      CHECK(tokenizer->ids(prompt[0].get<std::string>()) == prompt[1].get<std::vector<std::int64_t>>());
    }
    const Json& framed = folder["framed"];
    const TokenIds result = tokenizer->encode(framed["prompt"].get<std::string>(), 16);
    CHECK(result.ids == framed["ids"].get<std::vector<std::int64_t>>());
    CHECK(result.used == framed["used"].get<std::int64_t>());
    CHECK(result.cut == framed["cut"].get<std::string>());
  }
}

}  // namespace
}  // namespace xdit::text::test
