#include <filesystem>
#include <nlohmann/json.hpp>

#include "output/png.h"
#include "tests/catch.h"
#include "tests/cli/process.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string picture(std::uint8_t first_level, std::vector<output::TextChunk> text = {}, int height = 4) {
  std::vector<std::uint8_t> rgb(static_cast<std::size_t>(6) * height * 3, 50);
  rgb[(2 * 6 + 5) * 3] = first_level;  // red at x 5, y 2
  return output::encode_png(rgb, 6, height, text);
}

}  // namespace

TEST_CASE("verify tells equal pictures from others") {
  const Folder folder;
  const std::string a = folder.write("a.png", picture(50, {{"xdit-gen", R"({"seed":1})"}}));
  const Result equal =
      xdit_gen({"verify", a, folder.write("b.png", picture(50, {{"xdit-gen", R"({"seed":1})"}}))});
  CHECK(equal.code == 0);
  CHECK(equal.out == "equal bytes\n");

  const Result text =
      xdit_gen({"verify", a, folder.write("c.png", picture(50, {{"xdit-gen", R"({"seed":2})"}}))});
  CHECK(text.code == 9);
  CHECK(text.out == "equal pixels, other text\n  xdit-gen.seed: '1' and '2'\n");

  const std::string far = folder.write("d.png", picture(53, {{"xdit-gen", R"({"seed":1})"}}));
  const Result pixels = xdit_gen({"verify", a, far});
  CHECK(pixels.code == 9);
  CHECK(pixels.out ==
        "other pixels\n"
        "  3 levels apart at most, 0.0417 on average; PSNR 57.16 dB\n"
        "  1 of 24 pixels (4.17 %), all in x 5 to 5, y 2 to 2\n"
        "  worst at x 5, y 2: [50,50,50] and [53,50,50]\n");
  const json about = json::parse(xdit_gen({"verify", "--json", a, far}).out);
  CHECK(about.at("equal") == false);
  CHECK(about.at("pictures").at(0).at("pixels").at("box") == json({5, 2, 5, 2}));

  const Result size = xdit_gen({"verify", a, folder.write("e.png", picture(50, {}, 5))});
  CHECK(size.code == 9);
  CHECK_THAT(size.out, ContainsSubstring("sizes [6,4] and [6,5]"));
}

TEST_CASE("verify compares folders by relative names") {
  const Folder folder;
  for (const char* name : {"a/deep", "b/deep"}) fs::create_directories(folder.path / name);
  for (const char* name : {"a/1.png", "b/1.png", "a/deep/2.png", "b/3.png"})
    static_cast<void>(folder.write(name, picture(50)));
  static_cast<void>(folder.write("b/deep/2.png", picture(60)));
  static_cast<void>(folder.write("a/4.png", "no PNG"));
  static_cast<void>(folder.write("b/4.png", "nor this"));
  static_cast<void>(folder.write("a/notes.txt", "no picture"));
  const std::string a = (folder.path / "a").string();
  const std::string b = (folder.path / "b").string();
  const Result result = xdit_gen({"verify", a, b});
  CHECK(result.code == 9);
  CHECK_THAT(result.out, ContainsSubstring("3.png: missing from " + a + "\n") &&
                             ContainsSubstring("4.png: bad PNG: the file ends too early (" + a) &&
                             ContainsSubstring("deep/2.png: other pixels\n") &&
                             ContainsSubstring("1 of 4 pictures: equal bytes\n"));
  const json rows = json::parse(xdit_gen({"verify", a, b, "--json"}).out).at("pictures");
  REQUIRE(rows.size() == 4);
  CHECK(rows.at(0) == json{{"name", "1.png"}, {"result", "equal"}});
  CHECK(rows.at(1).at("from") == "a");
  const Result same = xdit_gen({"verify", b, b});
  CHECK(same.code == 0);
  CHECK(same.out == "4 of 4 pictures: equal bytes\n");
}

TEST_CASE("verify refuses what cannot be compared: exit 2") {
  const Folder folder;
  const std::string a = folder.write("a.png", picture(50));
  fs::create_directory(folder.path / "empty");
  const std::string empty = (folder.path / "empty").string();
  CHECK(xdit_gen({"verify", a}).code == 2);
  const Result plan =
      xdit_gen({"verify", "gpus=1", "gathre=2", "-m", data("flux/tiny-dev"), "-p", "a", "--device", "cpu"});
  CHECK(plan.code == 2);
  CHECK_THAT(plan.err, ContainsSubstring("'parallel.gathre'") && ContainsSubstring("parallel.gather"));
  CHECK(xdit_gen({"verify", "gpus=1", a, "-m", data("flux/tiny-dev"), "-p", "a"}).code == 2);
  CHECK(xdit_gen({"verify", a, empty}).code == 2);
  CHECK(xdit_gen({"verify", empty, empty}).code == 2);
  CHECK(xdit_gen({"verify", a, folder.write("b.png", "no PNG")}).code == 2);
  const Result absent = xdit_gen({"verify", a, "absent.png"});
  CHECK(absent.code == 2);
  CHECK_THAT(absent.err, ContainsSubstring("absent.png"));
}

}  // namespace xdit::cli
