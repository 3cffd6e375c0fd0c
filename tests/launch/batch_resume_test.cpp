#include <map>

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

}  // namespace xdit::cli
