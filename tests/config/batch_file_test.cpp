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
  CHECK_THROWS_AS(read_batch("\"prompt\na\n", "f", BatchFormat::kCsv), Error);
  CHECK_THROWS_AS(read_batch("a: b", "f", BatchFormat::kYaml), Error);
  const std::string utf16(
      "\xFF\xFE"
      "a\0 \0f\0\n\0",
      10);
  for (const BatchFormat format :
       {BatchFormat::kText, BatchFormat::kJsonl, BatchFormat::kCsv, BatchFormat::kYaml})
    CHECK_THROWS_WITH(read_batch(utf16, "f", format), ContainsSubstring("not UTF-8 text"));
}

TEST_CASE("a quote without an end costs its line alone, wherever it stands") {
  const auto faults = [](const std::string& rows) {
    std::string lines;
    for (const BatchLine& line : read_batch("prompt,seed\n" + rows, "f", BatchFormat::kCsv))
      if (line.fault) lines += line.fault->where() + ": " + line.fault->message() + "\n";
    return lines;
  };
  const std::string endless = ": a quoted cell has no end\n";
  const std::string goes_on = ": a quoted cell goes on behind its end\n";
  const std::vector<std::string> fox{"prompt=a fox;", "sampling.seed=1;"};
  const std::vector<std::string> owl{"prompt=an owl, white;", "sampling.seed=2;"};
  for (const char* end : {"", "\n", "\r\n"})
    CHECK(faults(std::string("a fox,1\n\"a hare,2") + end) == "f:3" + endless);
  CHECK(faults("\"a hare,2\na fox,1\n\"an owl, white\",2\n") == "f:2" + goes_on);
  CHECK(faults("\"a hare,2\na fox,1\nan owl,2\n") == "f:2" + endless);
  CHECK(faults("a \"red\" hare,2\n\"a \"red\" hare\",2\n\"a fox\" ,1\n") == "f:3" + goes_on);
  CHECK(faults("\"a\nhare\",1\n\"a hare,2\n\"two\n\"\"lines\",2\n\"x") == "f:4" + goes_on + "f:7" + endless);
  CHECK(read("prompt,seed\na fox,1\n\"a hare,2\n\"an owl, white\",2\n", BatchFormat::kCsv) ==
        Lines{fox, {"!a quoted cell goes on behind its end"}, owl});
  // Each line opens a quote that the next one closes and opens again: no more work than there is text.
  std::string hostile = "prompt,seed\n";
  for (int i = 0; i < 200'000; ++i) hostile += "a\",\"b\n";
  CHECK(read(hostile, BatchFormat::kCsv).size() == 200'000);
}

TEST_CASE("what YAML must not hold here is the fault of its entry") {
  const std::string text =
      "- &base {prompt: a, seed: 1}\n- *base\n- {prompt: a fox, seed: 1}\n- {prompt: b, seed: 1, seed: 2}\n"
      "- {prompt: !!str c}\n- {prompt: [a, *base]}\n- {[a]: b}\n- {*base : b}\n- a fox\n";
  const Lines lines = read(text, BatchFormat::kYaml);
  REQUIRE(lines.size() == 9);
  for (const std::size_t i : {0U, 1U, 3U, 4U, 5U, 6U, 7U}) {
    INFO(i);
    CHECK(lines[i].size() == 1);
    CHECK(lines[i].front().starts_with("!"));
  }
  CHECK(lines[1].front() == "!a YAML alias is not allowed here");
  CHECK(lines[2] == std::vector<std::string>{"prompt=a fox;", "sampling.seed=1;"});
  CHECK(lines[8] == std::vector<std::string>{"prompt=a fox;"});
  CHECK(read_batch(text, "f", BatchFormat::kYaml)[1].fault->where() == "f:2:3");
  for (const char* whole : {"[a, {b]\n", "&all\n- a\n", "- a\n--- \n- b\n", "- a\n---\n- {b\n",
                            "  - a\n  - {b\n", "a: {\n- b\n", "a:\n- {b\n"})
    CHECK_THROWS_AS(read_batch(whole, "f", BatchFormat::kYaml), Error);
}

TEST_CASE("an entry of a YAML list that is no YAML costs itself alone") {
  const std::vector<std::string> fox{"prompt=a fox;", "sampling.seed=1;"};
  for (const char* wrong : {"- \"b", "- 'b", "- {prompt: \"b}", "- {prompt: 'it''s", "- \"b\\\"", "- \"b\" x",
                            "- b: c: d", "- \"d\\q\"", "- {b", "- *none", "- prompt: 'b\n  seed: 1"})
    for (const char* end : {"", "\n", "\r\n", "\n\n  "}) {
      CAPTURE(wrong, end);
      const std::string first = std::string("# prompts\n---\n- {prompt: a fox, seed: 1}\n") + wrong;
      for (const std::string& text :
           {first + end, first + "\n-\n    prompt: a fox\n    seed: 1\n- \"an owl\"" + end}) {
        const Lines lines = read(text, BatchFormat::kYaml);
        REQUIRE(lines.size() == (text == first + end ? 2 : 4));
        CHECK(lines[0] == fox);
        CHECK(lines[1].front().starts_with("!not valid YAML: "));
        if (lines.size() == 4) {
          CHECK(lines[2] == fox);
          CHECK(lines[3] == std::vector<std::string>{"prompt=an owl;"});
        }
        CHECK(read_batch(text, "f", BatchFormat::kYaml)[1].where == "f:4:1");
        CHECK(read_batch(text, "f", BatchFormat::kYaml)[1].fault->where().starts_with(
            std::string_view(wrong).find('\n') == std::string_view::npos ? "f:4:" : "f:"));
      }
    }
  const BatchLine line =
      read_batch("- a\n- {seed: 1,\n   prompt: \"b}\n- c\n", "f", BatchFormat::kYaml).at(1);
  CHECK(line.fault->message() == "not valid YAML: a quote has no end");
  CHECK(line.fault->where() == "f:3:12");
  CHECK(read("- \"a\n\n  fox\"\n- 'it''s'\n- \"\\\"\\\\\"\n- |\n  \"b\n", BatchFormat::kYaml) ==
        Lines{{"prompt=a\nfox;"}, {"prompt=it's;"}, {"prompt=\"\\;"}, {"prompt=\"b\n;"}});
  std::string longer = "- {\n";
  for (int i = 0; i < 3000; ++i) longer += "- {prompt: a fox, seed: 1}\n";
  CHECK_THROWS_WITH(read_batch(longer, "f", BatchFormat::kYaml), ContainsSubstring("10,000"));
}

TEST_CASE("a YAML list that is too long says what may be longer") {
  std::string list;
  for (int i = 0; i < 3000; ++i) list += "- {prompt: a fox, seed: 1}\n";
  try {
    static_cast<void>(read_batch(list, "f", BatchFormat::kYaml));
    FAIL();
  } catch (const Error& error) {
    CHECK(error.fix() == "JSONL or CSV, which may be longer");
  }
}

TEST_CASE("a value of more than 2 MiB is a fault in every format") {
  const std::string prompt(std::size_t{3} << 20U, 'x');
  for (const auto& [text, format] : {std::pair("prompt\n" + prompt + "\na fox\n", BatchFormat::kCsv),
                                     {"- " + prompt + "\n- a fox\n", BatchFormat::kYaml},
                                     {"\"" + prompt + "\"\n\"a fox\"\n", BatchFormat::kJsonl},
                                     {prompt + "\na fox\n", BatchFormat::kText}}) {
    const Lines lines = read(text, format);
    REQUIRE(lines.size() == 2);
    CHECK_THAT(lines[0].front(), ContainsSubstring("longer than 2 MiB"));
    CHECK(lines[1] == std::vector<std::string>{"prompt=a fox;"});
  }
}

TEST_CASE("a line that is not UTF-8 is a fault, and one that is no JSON says in which column") {
  for (const auto& [text, format] :
       {std::pair("caf\xE9\na fox\n", BatchFormat::kText), {"prompt\ncaf\xE9\na fox\n", BatchFormat::kCsv}})
    CHECK(read(text, format) == Lines{{"!not UTF-8 text"}, {"prompt=a fox;"}});
  const std::string why = read("\"a fox\"\n{\"prompt\": a}\n", BatchFormat::kJsonl).at(1).at(0);
  CHECK(why.starts_with("!not valid JSON: parse error at column 12: syntax error"));
}

TEST_CASE("a CSV whose first row names nothing says what it wants") {
  for (const char* text : {"a fox\nan owl\n", "prompt;seed\na fox;1\n"}) try {
      static_cast<void>(read_batch(text, "f", BatchFormat::kCsv));
      FAIL();
    } catch (const Error& error) {
      CHECK_THAT(error.fix(), ContainsSubstring("prompt,seed"));
    }
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
  CHECK(batch_format("a.txt", "[") == BatchFormat::kText);
  CHECK(batch_format("stdin", " [\n {\"prompt\": \"a fox\"}]") == BatchFormat::kYaml);
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
