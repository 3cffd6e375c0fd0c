#include <nlohmann/json.hpp>

#include "tests/catch.h"
#include "tests/cli/process.h"

namespace xdit::cli {

using nlohmann::json;

TEST_CASE("plan predicts a run on a named machine, without a GPU") {
  std::vector<std::string> arguments{"plan",  "-m",        "FLUX.1-dev", "--load-format",
                                     "dummy", "--machine", "h100x2"};
  const Result text = xdit_gen(arguments);
  CHECK(text.code == 0);
  CHECK_THAT(text.out, ContainsSubstring("rank 1 on GPU 1 (NVIDIA H100") &&
                           ContainsSubstring("a step), decode") && ContainsSubstring("| chosen") &&
                           ContainsSubstring("rounds differently"));
  arguments.emplace_back("--json");
  const json plan = json::parse(xdit_gen(arguments).out);
  CHECK(plan.at("chosen").at("grid").at("gather") == 2);
  CHECK(plan.at("chosen").at("seconds").at("denoise") > 1);
  CHECK(plan.at("ranks").size() == 2);
  for (const json& grid : plan.at("rejected")) CHECK(grid.at("why_not") != "");
  // The machine as a file gives the same plan.
  const Folder folder;
  arguments[6] = folder.write("machine.json", json{{"machine", plan.at("machine")}}.dump());
  CHECK(json::parse(xdit_gen(arguments).out) == plan);
  arguments[6] = folder.write("broken.json", "{}");
  CHECK(xdit_gen(arguments).code == 3);
  arguments[6] = "h100x";
  CHECK(xdit_gen(arguments).code == 2);
  CHECK(xdit_gen({"plan", "-m", data("flux/tiny-dev"), "--device", "cpu", "--gpus", "2"}).code == 0);
  CHECK(xdit_gen({"plan", "-m", data("flux/tiny-dev")}).code == 5);
}

TEST_CASE("plan counts a refiner's files, memory and seconds") {
  std::vector<std::string> arguments{"plan",          "-m",    "stable-diffusion-xl-base-1.0",
                                     "--load-format", "dummy", "--machine",
                                     "h100x2",        "--json"};
  const json alone = json::parse(xdit_gen(arguments).out);
  arguments.insert(arguments.end(), {"--refiner", "stable-diffusion-xl-refiner-1.0"});
  const json both = json::parse(xdit_gen(arguments).out);
  CHECK(alone.find("refiner") == alone.end());
  REQUIRE(both.at("refiner").at("ranks").size() == 2);
  for (const json& rank : both.at("refiner").at("ranks")) {
    CHECK(rank.at("networks").contains("vae"));
    CHECK(rank.at("peak_bytes") <= both.at("chosen").at("peak_bytes"));
  }
  for (const json& rank : both.at("ranks")) CHECK_FALSE(rank.at("networks").contains("vae"));
  const auto seconds = [](const json& plan, const char* phase) {
    return plan.at("chosen").at("seconds").at(phase).get<double>();
  };
  CHECK(seconds(both, "encode") > seconds(alone, "encode"));
  CHECK(seconds(both, "total") > seconds(alone, "total"));
  CHECK(both.at("rejected").size() == alone.at("rejected").size());
}

}  // namespace xdit::cli
