#include "tests/tokenizers/support.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>

#include "core/json.h"
#include "tests/catch.h"

namespace xdit::text::test {
namespace fs = std::filesystem;

fs::path data_folder() {
  return XDIT_TEST_DATA;
}

fs::path clip_folder() {
  fs::path folder = XDIT_CLIP_VOCABULARY;
  INFO("scripts/goldens/clip_vocabulary.py " << folder << " writes CLIP's vocabulary");
  REQUIRE(fs::exists(folder / "vocab.json"));
  REQUIRE(fs::exists(folder / "merges.txt"));
  return folder;
}

nlohmann::json golden(const std::string& name) {
  return read_json(data_folder() / "tokenizers" / name, ExitCode::kInternal);
}

std::vector<std::string> golden_strings() {
  std::vector<std::string> strings;
  for (const std::string hex : golden("strings.json")) {
    std::string& bytes = strings.emplace_back();
    for (std::size_t i = 0; i < hex.size(); i += 2)
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return strings;
}

std::unique_ptr<Tokenizer> open(const std::string& kind, const fs::path& folder) {
  return kind == "clip" ? open_clip_tokenizer(folder) : open_t5_tokenizer(folder);
}

void Hash::add_line(std::string_view line) {
  const auto add = [this](char c) { value_ = (value_ ^ static_cast<unsigned char>(c)) * 0x100000001B3U; };
  if (!first_) add('\n');
  first_ = false;
  for (const char c : line) add(c);
}

std::string Hash::hex() const {
  return fmt::format("{:016x}", value_);
}

std::string as_text(const std::vector<std::int64_t>& ids) {
  return fmt::format("{}", fmt::join(ids, " "));
}

void write(const fs::path& file, std::string_view bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

}  // namespace xdit::text::test
