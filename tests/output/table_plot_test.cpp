#include <algorithm>
#include <nlohmann/json.hpp>

#include "output/plot.h"
#include "output/table.h"
#include "tests/catch.h"

namespace xdit::output {
namespace {

using nlohmann::json;

Table example() {
  return {.columns = {{"parallel.gpus", "parallel.gpus"},
                      {"total_s", "total s"},
                      {"folder", ""},
                      {"note", "note"}},
          .rows = {{std::int64_t{1}, 12.345678, "a", std::monostate{}},
                   {std::int64_t{16}, 0.001234, "b", "x|y, \"z\"\n<b> & \xE7\x8C\xAB"},
                   {std::int64_t{2}, std::monostate{}, "c", "no"}}};
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

Plot speed_up() {
  return {.title = "a < b & \"c\"",
          .x_label = "GPUs",
          .y_label = "speed-up",
          .names = {},
          .lines = {{"steps 20", {{1, 1}, {2, 1.8}, {4, 3.1}, {8, 5}}},
                    {"</text><script>\x01\xEF\xBF\xBF", {{1, 1}, {2, 1.9}}},
                    {"ideal", {{1, 1}, {8, 8}}, true}}};
}

}  // namespace

TEST_CASE("a table in Markdown: one width a column, numbers to the right, nothing that ends a cell") {
  CHECK(to_markdown(example()) ==
        "| parallel.gpus | total s | note                      |\n"
        "| ------------: | ------: | ------------------------- |\n"
        "|             1 |    12.3 |                           |\n"
        "|            16 | 0.00123 | x\\|y, \"z\" &lt;b> &amp; \xE7\x8C\xAB |\n"
        "|             2 |         | no                        |\n");
  CHECK(three_digits(1234.5) == "1234");
  CHECK(three_digits(0) == "0");
  CHECK(three_digits(99.94) == "99.9");
  CHECK(three_digits(-1.005) == "-1.00");
}

TEST_CASE("a table as CSV, JSON and JSONL says the same, for programs") {
  const Table table = example();
  CHECK(to_csv(table) ==
        "parallel.gpus,total_s,folder,note\n"
        "1,12.345678,a,\n"
        "16,0.001234,b,\"x|y, \"\"z\"\"\n<b> & \xE7\x8C\xAB\"\n"
        "2,,c,no\n");
  const json rows = json::parse(to_json(table));
  REQUIRE(rows.size() == 3);
  CHECK(rows[1].at("total_s") == 0.001234);
  CHECK(rows[1].at("folder") == "b");
  CHECK(rows[2].at("total_s").is_null());
  const std::string lines = to_jsonl(table);
  CHECK(count(lines, "\n") == 3);
  CHECK(json::parse(lines.substr(0, lines.find('\n'))) == rows[0]);
}

TEST_CASE("a plot: a mark a point, a line a series, the ideal one dashed, texts escaped") {
  const std::string svg = to_svg(speed_up());
  CHECK(count(svg, "<circle ") == 6);
  CHECK(count(svg, "<polyline ") == 3);
  CHECK(count(svg, "stroke-dasharray") == 2);  // in the diagram and in the legend
  CHECK_THAT(svg, ContainsSubstring(">a &lt; b &amp; \"c\"</text>") && ContainsSubstring(">GPUs</text>") &&
                      ContainsSubstring(">&lt;/text&gt;&lt;script&gt;  </text>") &&
                      ContainsSubstring(">steps 20</text>"));
  for (const char* tick : {">1</text>", ">2</text>", ">4</text>", ">8</text>"})
    CHECK_THAT(svg, ContainsSubstring(tick));
  CHECK(count(svg, "<script") == 0);
  CHECK(count(svg, "<text ") == count(svg, "</text>"));
  CHECK(svg.ends_with("</svg>\n"));
}

TEST_CASE("a plot's places follow its numbers") {
  const std::string svg = to_svg(
      {.title = {}, .x_label = {}, .y_label = {}, .names = {}, .lines = {{"", {{0, 0}, {5, 10}, {10, 20}}}}});
  // Along both axes the middle point stands in the middle, and a larger y higher on the page.
  const std::size_t at = svg.find("points=\"") + 8;
  double x[3], y[3];
  REQUIRE(std::sscanf(svg.c_str() + at, "%lf,%lf %lf,%lf %lf,%lf", &x[0], &y[0], &x[1], &y[1], &x[2],
                      &y[2]) == 6);
  CHECK(std::abs(x[1] - (x[0] + x[2]) / 2) < 0.11);
  CHECK(std::abs(y[1] - (y[0] + y[2]) / 2) < 0.11);
  CHECK(y[2] < y[0]);
  CHECK(x[0] < x[2]);
}

TEST_CASE("a plot over names, and one of nothing") {
  const std::string svg = to_svg({.title = {},
                                  .x_label = {},
                                  .y_label = {},
                                  .names = {"euler", "a name that is far too long"},
                                  .lines = {{"", {{0, 3}, {1, 4}}}}});
  CHECK_THAT(svg, ContainsSubstring(">euler</text>") && ContainsSubstring(">a name that is...</text>"));
  for (const Plot& plot :
       {Plot{}, Plot{.title = {}, .x_label = {}, .y_label = {}, .names = {}, .lines = {{"", {{0, 0}}}}}}) {
    const std::string empty = to_svg(plot);
    CHECK(empty.ends_with("</svg>\n"));
    CHECK(empty.find("nan") == std::string::npos);
    CHECK(empty.find("inf") == std::string::npos);
  }
}

}  // namespace xdit::output
