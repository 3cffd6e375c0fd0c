#include <fstream>
#include <map>
#include <sstream>

#include "tests/catch.h"
#include "tests/launch/small_run.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;
using test::contents;

const Run kAlone{.environment = {"OMP_NUM_THREADS=1"}};

}  // namespace

TEST_CASE("a batch goes on with a file that has changed: what stays keeps its picture, number and seed") {
  const Folder folder;
  const fs::path output = folder.path / "out";
  const auto resume = [&](const std::string& lines, const std::vector<std::string>& more = {}) {
    std::vector<std::string> all{"batch",    folder.write("p.txt", lines),
                                 "-m",       data("flux/tiny-dev"),
                                 "--device", "cpu",
                                 "--dtype",  "fp32",
                                 "--size",   "32x48",
                                 "--steps",  "2",
                                 "-o",       output / "{index}.png",
                                 "--resume"};  // seeds are drawn
    all.insert(all.end(), more.begin(), more.end());
    return xdit_gen(all, kAlone);
  };
  const auto listed = [&](const std::vector<int>& indexes) {
    std::string lines;
    for (const int index : indexes) lines += (output / (std::to_string(index) + ".png")).string() + "\n";
    return lines;
  };
  REQUIRE(resume("a fox\nan owl\na hare\na cat\n").code == 0);
  std::map<int, std::string> made;
  for (int i = 0; i < 4; ++i) made[i] = contents(output / (std::to_string(i) + ".png"));
  fs::remove(output / "2.png");

  const Result taken_out = resume("a fox\na hare\na cat\na dog\n");
  INFO(taken_out.err);
  CHECK(taken_out.code == 0);
  CHECK(taken_out.out == listed({2, 4}));
  CHECK_THAT(taken_out.err,
             ContainsSubstring("1 line of an earlier") && ContainsSubstring("2 of 4 pictures left"));
  const Result as_before = resume("a fox\nan owl\na hare\na cat\na dog\n");
  CHECK_THAT(as_before.err, ContainsSubstring("0 of 5 pictures left") && !ContainsSubstring("earlier"));
  CHECK(resume("a fox\na cow\na hare\na cat\na dog\n").out == listed({5}));
  for (const auto& [i, bytes] : made) CHECK(contents(output / (std::to_string(i) + ".png")) == bytes);

  const Result other = resume("a fox\nan owl\n", {"--steps", "3"});
  CHECK(other.code == 8);
  CHECK_THAT(other.err, ContainsSubstring("p.txt:1 asks for another picture than was made there") &&
                            ContainsSubstring("--resume --overwrite makes it anew"));
  CHECK(resume("a fox\nan owl\n", {"--steps", "3", "--overwrite"}).out == listed({0, 1}));
}

TEST_CASE("a line that is mended to make more or fewer pictures changes the number of no other") {
  const Folder folder;
  const fs::path output = folder.path / "out";
  const auto batch = [&](const std::vector<std::string>& seeds, const std::string& name) {
    std::string lines;
    for (std::size_t i = 0; i < seeds.size(); ++i)
      lines += R"({"prompt": ")" + std::string(1, static_cast<char>('a' + i)) + R"(", "seed": ")" + seeds[i] +
               "\"}\n";
    return xdit_gen({"batch", folder.write("b.jsonl", lines), "-m", data("flux/tiny-dev"), "--device", "cpu",
                     "--dtype", "fp32", "--size", "32x48", "--steps", "2", "-o", output / name, "--resume"},
                    kAlone);
  };
  const auto path = [&](const std::string& name) { return (output / name).string() + "\n"; };

  CHECK(batch({"1", "1-x", "1"}, "{index}.png").out == path("0.png") + path("2.png"));
  const Result mended = batch({"1", "1-2", "1"}, "{index}.png");
  INFO(mended.err);
  CHECK(mended.code == 0);
  CHECK(mended.out == path("3.png") + path("4.png"));
  CHECK(batch({"1", "1-2", "1"}, "{index}.png").out.empty());
  fs::remove(output / "batch.jsonl");

  CHECK(batch({"1", "1-x", "1"}, "{index}-{prompt}.png").code == 9);
  CHECK(batch({"1", "1", "1"}, "{index}-{prompt}.png").out == path("1-b.png"));  // as many: its own number
  fs::remove_all(output);

  // As if it had been killed before b was begun.
  fs::create_directories(output);
  CHECK(batch({"1", "1-3", "1"}, "{index}.png").code == 0);
  std::string kept;
  for (std::istringstream lines(contents(output / "batch.jsonl")); std::getline(lines, kept);) {
    if (kept.find(R"("prompt":"b")") == std::string::npos)
      std::ofstream(output / "some.jsonl", std::ios::app) << kept << '\n';
  }
  fs::rename(output / "some.jsonl", output / "batch.jsonl");
  for (const char* b : {"1.png", "2.png", "3.png"}) REQUIRE(fs::remove(output / b));
  CHECK(batch({"1", "5", "1"}, "{index}.png").out == path("5.png"));
}

TEST_CASE("lines that move keep their pictures") {
  const Folder folder;
  const auto resume = [&](const std::string& lines) {
    return xdit_gen({"batch", folder.write("p.txt", lines), "-m", data("flux/tiny-dev"), "--device", "cpu",
                     "--dtype", "fp32", "--size", "32x48", "--steps", "2", "-o",
                     folder.path / "out" / "{index}-{prompt}.png", "--resume"},
                    kAlone);
  };
  REQUIRE(resume("a\nb\nc\nd\n").code == 0);
  const Result moved = resume("b\na\nd\nc\n");
  CHECK(moved.code == 0);
  CHECK(moved.out.empty());
  CHECK_THAT(moved.err, ContainsSubstring("0 of 4 pictures left"));
}

}  // namespace xdit::cli
