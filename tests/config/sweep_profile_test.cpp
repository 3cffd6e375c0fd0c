#include "config/sweep_profile.h"

#include "tests/catch.h"
#include "tests/config/support.h"

namespace xdit::config {
namespace {

SweepProfile read_sweep(const TemporaryFolder& folder, const std::string& yaml) {
  return read_sweep_profile(folder.write("sweep.yaml", yaml));
}

}  // namespace

TEST_CASE("a sweep is the product of its lists, the last varying fastest, over the rest of the profile") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder.path / "other");
  const SweepProfile profile = read_sweep(folder, R"(sampling: {steps: 9, seed: 3}
sweep:
  parallel.gpus: [1, "0,1", all]
  sampling.steps: [20, 28]
  prompt: [[a, b], "no"]
  model.path: [other]
)");
  CHECK(winner(std::vector<Layer>{profile.base}, "sampling.steps")->values.front() == "9");
  CHECK(winner(std::vector<Layer>{profile.base}, "parallel.gpus") == nullptr);
  REQUIRE(profile.axes.size() == 4);
  CHECK(profile.axes[0].key == "parallel.gpus");
  CHECK(profile.axes[3].values.front().values.front() == (folder.path / "other").string());

  const std::vector<Layer> points = points_of(profile.axes);
  REQUIRE(points.size() == 12);
  const auto spec = [&](std::size_t point) {
    return resolve(std::vector<Layer>{minimum(), profile.base, points.at(point)}, no_draw).spec;
  };
  CHECK(spec(0).prompts == std::vector<std::string>{"a", "b"});
  CHECK(spec(1).prompts == std::vector<std::string>{"no"});
  CHECK(spec(2).sampling.steps == 28);
  CHECK(spec(3).parallel.gpus == "1");
  CHECK(spec(4).parallel.gpus == "0,1");
  CHECK(spec(11).parallel.gpus == "all");
  CHECK(spec(11).sampling.steps == 28);
  CHECK(spec(11).sampling.seeds == std::vector<std::uint64_t>{3});
}

TEST_CASE("faults of a sweep name file, line and column") {
  struct Case {
    std::string yaml;
    std::string where;
    std::string message;
    std::string fix;
  };
  const std::vector<Case> cases{
      {"prompt: a", "sweep.yaml", "no sweep: section", "sweep: {"},
      {"sweep: [1]", "sweep.yaml:1:8", "expected keys with lists of values, found a list", "parallel.gpus"},
      {"sweep: {}", "sweep.yaml:1:8", "expected keys with lists", ""},
      {"sweep:\n  steps: [1]", "sweep.yaml:2:3", "unknown key 'steps' in sweep", "sampling.steps: [...]"},
      {"sweep: {paralel.gpus: [1]}", "sweep.yaml:1:9", "unknown key", "parallel.gpus"},
      {"sweep: {parallel.gpus: 4}", "sweep.yaml:1:24", "expected a list of values, found a number '4'", ""},
      {"sweep: {parallel.gpus: []}", "sweep.yaml:1:24", "found an empty list", ""},
      {"sweep: {sampling.steps: [20, x]}", "sweep.yaml:1:30", "expected an integer 1..1000, found", ""},
      {"sweep: {sampling.steps: [20, 0]}", "sweep.yaml:1:30", "expected an integer 1..1000, found '0'", ""},
      {"sweep: {sampling.steps: [\"20\"]}", "sweep.yaml:1:26", "found the text '20'", ""},
      {"sweep: {sampling.steps: [[20]]}", "sweep.yaml:1:26", "found a list", ""},
      {"sweep: {prompt: [a, no]}", "sweep.yaml:1:21", "found a boolean 'no'", ""},
      {"sweep: {sampling.steps: [20, 28, 20]}", "sweep.yaml:1:34", "a value twice, first at", "remove"},
      {"sweep: {sampling.steps: [20], sampling.steps: [1]}", "sweep.yaml:1:31", "duplicate key", ""},
      {"sweep: {output.path: [a, b]}", "sweep.yaml:1:9", "cannot be swept", ""},
      {"sweep: {parallel.gpus: [1]}\nsamplng: 1", "sweep.yaml:2:1", "unknown key 'samplng'", "sampling"},
  };
  for (const Case& wrong : cases) {
    CAPTURE(wrong.yaml);
    const TemporaryFolder folder;
    try {
      static_cast<void>(read_sweep(folder, wrong.yaml));
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kProfile);
      CHECK(error.where() == (folder.path / wrong.where).string());
      CHECK_THAT(error.message(), ContainsSubstring(wrong.message));
      CHECK_THAT(error.fix(), ContainsSubstring(wrong.fix));
    }
  }
  std::string many = "sweep:\n";
  for (const char* key : {"sampling.steps", "image.count", "sampling.max_sequence_length"}) {
    many += std::string("  ") + key + ": [1";
    for (int i = 2; i <= 30; ++i) many += "," + std::to_string(i);
    many += "]\n";
  }
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(read_sweep(folder, many), ContainsSubstring("more than 1000 points"));
}

}  // namespace xdit::config
