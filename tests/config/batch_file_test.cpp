#include "config/batch_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/catch.h"

namespace xdit::config {
namespace {

// "key=value" of each setting of each line; "!" and the message of a fault.
std::vector<std::vector<std::string>> read(const std::string& text, BatchFormat format) {
  std::vector<std::vector<std::string>> all;
  for (const BatchLine& line : read_batch(text, "f", format)) {
    std::vector<std::string>& texts = all.emplace_back();
    if (line.fault) texts.push_back("!" + line.fault->message());
    for (const Setting& setting : line.settings) {
      texts.push_back(setting.key + "=");
      for (const std::string& value : setting.values) texts.back() += value + ";";
    }
    std::sort(texts.begin(), texts.end());
  }
  return all;
}

using Lines = std::vector<std::vector<std::string>>;

}  // namespace

TEST_CASE("the four formats say the same") {
  const Lines expected{{"image.width=64;", "prompt=a \"fox\", red;", "sampling.steps=4;"},
                       {"prompt=an owl;"}};
  CHECK(read("{\"prompt\": \"a \\\"fox\\\", red\", \"steps\": 4, \"image\": {\"width\": 64}}\n\n\"an owl\"",
             BatchFormat::kJsonl) == expected);
  CHECK(read("prompt,num_inference_steps,width\r\n\"a \"\"fox\"\", red\",4,64\r\nan owl,,\r\n",
             BatchFormat::kCsv) == expected);
  CHECK(read("- {prompt: 'a \"fox\", red', sampling.steps: 4, image: {width: 64}}\n- an owl\n",
             BatchFormat::kYaml) == expected);
  CHECK(read("a fox\r\n\n  \nan owl", BatchFormat::kText) == Lines{{"prompt=a fox;"}, {"prompt=an owl;"}});
}

TEST_CASE("size is width and height, in every format") {
  const Lines expected{{"image.height=48;", "image.width=32;", "prompt=a fox;"}};
  CHECK(read(R"({"prompt": "a fox", "size": "32x48"})", BatchFormat::kJsonl) == expected);
  CHECK(read("size,prompt\n32x48,a fox\n", BatchFormat::kCsv) == expected);
  CHECK(read("- {prompt: a fox, size: 32X48}\n", BatchFormat::kYaml) == expected);
  const std::vector<BatchLine> wrong = read_batch(
      "{\"size\": 32}\n{\"size\": [\"32x48\", \"8x8\"]}\n{\"size\": \"32x48\", \"width\": 32}\n"
      "{\"sizes\": \"32x48\"}",
      "f", BatchFormat::kJsonl);
  const std::vector<std::string> why{"expected WIDTHxHEIGHT, found '32'", "size takes one value",
                                     "image.width is there twice", "'sizes' is no setting of a line"};
  REQUIRE(wrong.size() == why.size());
  for (std::size_t i = 0; i < why.size(); ++i) {
    REQUIRE(wrong[i].fault);
    CHECK(wrong[i].fault->message() == why[i]);
  }
  CHECK(wrong[3].fault->fix() == "size");
}

TEST_CASE("a line's fault is its own") {
  const std::vector<BatchLine> lines = read_batch(
      "{\"prompt\": \"a\", \"seed\": [1, 2]}\n{\"prompt\": \"b\", \"setps\": 4}\n{\"gpus\": 2}\n[1]\n{\n"
      "{\"seed\": 1, \"sampling\": {\"seed\": 2}}\n{\"prompt\": \"c\", \"prompt\": \"d\"}\n{\"seed\": -1}",
      "f", BatchFormat::kJsonl);
  REQUIRE(lines.size() == 8);
  CHECK(lines[0].settings.back().values == std::vector<std::string>{"1", "2"});
  for (const std::size_t i : {1U, 2U, 3U, 4U, 5U, 6U}) {
    INFO(i);
    REQUIRE(lines[i].fault);
    CHECK(lines[i].fault->where().starts_with("f:" + std::to_string(i + 1)));
  }
  CHECK(lines[1].fault->fix() == "steps");
  for (const auto& [name, fix] : {std::pair{"stpes", "steps"},
                                  {"guidance_rescale", "sampling.guidance_rescale"},
                                  {"guidance-rescale", "sampling.guidance_rescale"},
                                  {"refinerstart", "sampling.refiner_start"},
                                  {"sampling.refiner_strat", "sampling.refiner_start"},
                                  {"wibble_wobble", ""}}) {
    CAPTURE(name);
    const std::string line = fmt::format("{{\"prompt\": \"a\", \"{}\": 1}}", name);
    CHECK(read_batch(line, "f", BatchFormat::kJsonl).front().fault->fix() == fix);
  }
  CHECK(lines[7].settings.front().values == std::vector<std::string>{"-1"});
  CHECK(read("prompt,seed\na,b,c\nd,1\n", BatchFormat::kCsv).back() ==
        std::vector<std::string>{"prompt=d;", "sampling.seed=1;"});
  CHECK_THROWS_AS(read_batch("prompt,W\n", "f", BatchFormat::kCsv), Error);
  CHECK_THROWS_AS(read_batch("prompt\n\"a", "f", BatchFormat::kCsv), Error);
  CHECK_THROWS_AS(read_batch("a: b", "f", BatchFormat::kYaml), Error);
  const std::string utf16(
      "\xFF\xFE"
      "a\0 \0f\0\n\0",
      10);
  for (const BatchFormat format :
       {BatchFormat::kText, BatchFormat::kJsonl, BatchFormat::kCsv, BatchFormat::kYaml})
    CHECK_THROWS_WITH(read_batch(utf16, "f", format), ContainsSubstring("not UTF-8 text"));
}

TEST_CASE("formats by name, or by how the text begins") {
  CHECK(batch_format("a.csv", "") == BatchFormat::kCsv);
  CHECK(batch_format("a.yml", "") == BatchFormat::kYaml);
  CHECK(batch_format("a.jsonl", "\"a\"") == BatchFormat::kJsonl);
  CHECK(batch_format("stdin", " \n{\"prompt\"") == BatchFormat::kJsonl);
  CHECK(batch_format("a.txt", "a fox") == BatchFormat::kText);
  CHECK(batch_format("A.CSV", "") == BatchFormat::kCsv);
  CHECK(batch_format("a.txt", "\xEF\xBB\xBF{\"prompt\"") == BatchFormat::kJsonl);
  CHECK(batch_format("a.json", "\n[{") == BatchFormat::kYaml);
  CHECK(batch_format("a.json", "{") == BatchFormat::kJsonl);
  CHECK(batch_format("a.txt", "[a fox]") == BatchFormat::kText);
}

TEST_CASE("a byte order mark and carriage returns belong to no prompt, no heading and no value") {
  const std::string mark = "\xEF\xBB\xBF";
  const Lines expected{{"prompt=a fox;", "sampling.seed=1;"}};
  CHECK(read(mark + "prompt,seed\r\na fox,1\r\n", BatchFormat::kCsv) == expected);
  CHECK(read(mark + "{\"prompt\": \"a fox\", \"seed\": 1}\r\n\r\n", BatchFormat::kJsonl) == expected);
  CHECK(read(mark + "- prompt: a fox\r\n  seed: 1\r\n", BatchFormat::kYaml) == expected);
  CHECK(read(mark + "[\n {\"prompt\": \"a fox\",\r\n\t\"seed\": 1}\n]\n", BatchFormat::kYaml) == expected);
  CHECK(read(mark + "a fox\r\n", BatchFormat::kText) == Lines{{"prompt=a fox;"}});
}

}  // namespace xdit::config
