#include "launch/in_order.h"

#include <nlohmann/json.hpp>

#include "launch/launch.h"
#include "tests/catch.h"
#include "tests/launch/small_run.h"

namespace xdit::launch {
namespace {

using Told = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("pictures are told in their order, each as soon as all before it are settled") {
  Told told;
  InOrder order([&](std::int64_t index) { told.push_back(index); }, {4, 1, 9, 7, 2});
  order.settle(1, true);
  CHECK(told.empty());
  order.settle(4, true);
  CHECK(told == Told{4, 1});
  order.settle(7, true);
  order.settle(9, false);  // never made
  CHECK(told == Told{4, 1, 7});
  CHECK((order.settled(9) && !order.settled(2)));
  order.settle(2, true);
  order.end();
  CHECK(told == Told{4, 1, 7, 2});
}

TEST_CASE("at the end of a run that failed, what is there is told though something before it is not") {
  Told told;
  InOrder order([&](std::int64_t index) { told.push_back(index); }, {0, 1, 2, 3});
  order.settle(3, true);
  order.settle(1, true);
  order.end();
  CHECK(told == Told{1, 3});
}

TEST_CASE("ranks that share pictures take turns, so that the first ones are there first") {
  config::RunSpec spec;
  spec.prompts = {"a"};
  spec.sampling.seeds = {1};
  spec.image.count = 5;
  parallel::Plan plan;
  for (const parallel::Range pictures : {parallel::Range{0, 3}, {0, 3}, {3, 2}, {3, 2}}) {
    parallel::RankPlan rank;
    rank.pictures = pictures;
    plan.ranks.push_back(rank);
  }
  deal_out(spec, plan);
  Told dealt;
  for (const config::Picture& picture : config::pictures(spec)) dealt.push_back(picture.index);
  CHECK(dealt == Told{0, 2, 4, 1, 3});
}

TEST_CASE("stdout of generate does not depend on who makes which picture") {
  const cli::Folder folder;
  const auto lines = [&](const std::string& name, std::vector<std::string> grid, const char* json) {
    grid.insert(grid.end(), {"--count", "5", "--steps", "2", json});
    const cli::Result result =
        cli::xdit_gen(test::arguments(folder.path / name, grid), {.environment = {"OMP_NUM_THREADS=1"}});
    INFO(result.err);
    REQUIRE(result.code == 0);
    std::string text = result.out;
    const std::string own = (folder.path / name).string();
    for (std::size_t at = text.find(own); at != std::string::npos; at = text.find(own, at))
      text.replace(at, own.size(), "out");
    return text;
  };
  CHECK(lines("one", {"--gpus", "1"}, "--no-json") ==
        "out/0.png\nout/1.png\nout/2.png\nout/3.png\nout/4.png\n");
  CHECK(lines("a", {"--gpus", "2", "--data", "2"}, "--no-json") == lines("b", {"--gpus", "1"}, "--no-json"));
  CHECK(lines("c", {"--gpus", "3", "--data", "3"}, "--json") == lines("d", {"--gpus", "1"}, "--json"));
}

TEST_CASE("bytes do not depend on the threads of a rank") {
  for (const char* model : {"sd/tiny-sdxl", "flux/tiny-dev"})
    for (const char* dtype : {"fp32", "bf16", "fp16"}) {
      CAPTURE(model, dtype);
      const cli::Folder folder;
      const auto picture = [&](const std::string& threads, const char* ranks) {
        const std::filesystem::path to = folder.path / (threads + ranks);
        const std::vector<std::string> words{"-m",       std::string(XDIT_TEST_DATA "/") + model,
                                             "-p",       "a fox",
                                             "-s",       "1",
                                             "--steps",  "2",
                                             "--size",   "64x64",
                                             "--device", "cpu",
                                             "--dtype",  dtype,
                                             "--gpus",   ranks,
                                             "-o",       (to / "0.png").string()};
        const cli::Result result = cli::xdit_gen(words, {.environment = {"OMP_NUM_THREADS=" + threads}});
        INFO(result.err);
        REQUIRE(result.code == 0);
        return read_file(to / "0.png", ExitCode::kOutput);
      };
      const std::string one = picture("1", "1");
      CHECK(picture("2", "1") == one);
      CHECK(picture("3", "1") == one);
      CHECK(picture("2", "2") == one);
    }
}

}  // namespace xdit::launch
