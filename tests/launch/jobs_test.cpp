// Pictures of a batch that share a launch, whatever they are sampled with.
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/launch.h"
#include "tests/catch.h"
#include "tests/launch/small_run.h"

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;
using cli::Folder;
using cli::Result;
using test::contents;

constexpr int kGoodBatch = 6;

// FLUX.1-dev's pictures of so many steps each.
config::RunSpec run_of(const std::vector<std::int64_t>& steps) {
  config::RunSpec spec;
  spec.parallel.gpus = "all";
  spec.sampling.seeds = {0};
  for (std::size_t i = 0; i < steps.size(); ++i) {
    spec.sampling.steps = steps[i];
    spec.variants.push_back({spec.sampling, {}});
    spec.listed.push_back(
        {.index = static_cast<std::int64_t>(i), .prompt = std::to_string(i), .seed = 0, .variant = i});
  }
  return spec;
}

// Degrees of the jobs' meshes over pictures, and who they make.
using Jobs = std::vector<std::pair<std::int64_t, std::set<std::int64_t>>>;

Jobs planned(const std::vector<std::int64_t>& steps, const std::string& machine) {
  const models::Model model = models::open("FLUX.1-dev", {}, {}, true);
  Jobs jobs;
  for (const PlannedJob& job : plan_jobs(run_of(steps), model, parallel::read_machine(machine))) {
    std::set<std::int64_t> pictures;
    for (const config::Picture& picture : job.spec.listed) pictures.insert(picture.index);
    jobs.emplace_back(job.plan.mesh.data, std::move(pictures));
  }
  return jobs;
}

std::vector<std::string> batch(const std::string& model, const std::string& file, const fs::path& output,
                               const std::vector<std::string>& more) {
  std::vector<std::string> all{"batch",    file,
                               "-m",       cli::data(model),
                               "--device", "cpu",
                               "--dtype",  "fp32",
                               "--size",   "32x48",
                               "--set",    "sampling.max_sequence_length=32",
                               "-o",       output / "{index}.png"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::map<std::string, std::string> grids(const fs::path& output) {
  std::map<std::string, std::string> grids;  // by picture
  std::ifstream file(output / "batch.jsonl");
  for (std::string line; std::getline(file, line);)
    if (const nlohmann::json json = nlohmann::json::parse(line); json.contains("grid"))
      grids[fs::path(json["path"].get<std::string>()).filename()] = json["grid"].get<std::string>();
  return grids;
}

}  // namespace

TEST_CASE("pictures of unlike steps share ranks as is faster: one each, all on one, or rounds and the rest") {
  CHECK(planned({28, 20, 24, 28}, "h100x4") == Jobs{{4, {0, 1, 2, 3}}});
  CHECK(planned({50, 4}, "h100x2") == Jobs{{1, {0, 1}}});  // the second rank would wait for 46 steps
  CHECK(planned({28, 28, 28, 28, 28}, "h100x4") == Jobs{{4, {0, 1, 2, 3}}, {1, {4}}});
  CHECK(planned({28}, "h100x4") == Jobs{{1, {0}}});
  CHECK(planned({28, 20, 24}, "h100x1") == Jobs{{1, {0, 1, 2}}});
}

TEST_CASE(
    "a batch's ranks make one picture each though settings differ: the bytes of one rank and of generate") {
  struct Case {
    std::string model, lines;
    std::vector<std::string> fourth;  ///< that line's picture, to generate
  };
  const Case flux{
      "flux/tiny-dev",
      R"({"prompt": "a fox", "seed": 1, "steps": 3}
{"prompt": "an owl", "seed": 2, "steps": 2, "guidance": 7}
{"prompt": "a fox", "seed": 3, "steps": 4, "scheduler": "flow-match-heun"}
{"prompt": "a hare", "seed": 4, "steps": 5, "rng_dtype": "bf16", "sampling": {"shift": 2}}
{"prompt": "a fox", "seed": 5, "steps": 3}
{"prompt": "a fox", "seed": 6, "steps": 2, "height": 32}
)",
      {"-p", "a hare", "-s", "4", "--steps", "5", "--rng-dtype", "bf16", "--set", "sampling.shift=2"}};
  const Case sdxl{"sd/tiny-sdxl",
                  R"({"prompt": "a fox", "seed": 1, "steps": 3}
{"prompt": "an owl", "seed": 2, "steps": 2, "cfg_scale": 3, "negative_prompt": "snow"}
{"prompt": "a fox", "seed": 3, "steps": 3, "scheduler": "Euler a"}
{"prompt": "a fox", "seed": 4, "steps": 2, "negative_prompt": "", "sampling": {"crop": "8x4"}}
{"prompt": "a hare", "seed": 5, "steps": 2, "sampling": {"guidance_rescale": 0.7}}
{"prompt": "a fox", "seed": 6, "steps": 2, "cfg_scale": 1}
)",
                  {"-p", "a fox", "-s", "4", "--steps", "2", "-n", "", "--set", "sampling.crop=8x4"}};
  const cli::Run alone{.environment = {"OMP_NUM_THREADS=1"}};
  for (const auto& [model, lines, fourth] : {flux, sdxl}) {
    CAPTURE(model);
    const Folder folder;
    const std::string file = folder.write("p.jsonl", lines);
    const Result one = cli::xdit_gen(batch(model, file, folder.path / "one", {}), alone);
    INFO(one.err);
    REQUIRE(one.code == 0);
    for (const auto& [gpus, mode] : {std::pair{"2", ""}, {"3", ""}, {"2", "--gather"}}) {
      CAPTURE(gpus, mode);
      const fs::path output = folder.path / (std::string(gpus) + mode);
      std::vector<std::string> grid{"--gpus", gpus};
      if (*mode != 0) grid.insert(grid.end(), {mode, gpus});
      const Result many = cli::xdit_gen(batch(model, file, output, grid), alone);
      INFO(many.err);
      REQUIRE(many.code == 0);
      std::string names = many.out;
      for (std::size_t at = 0; (at = names.find(output.string(), at)) != std::string::npos;)
        names.replace(at, output.string().size(), (folder.path / "one").string());
      CHECK(names == one.out);
      for (int i = 0; i < kGoodBatch; ++i) {
        const std::string name = std::to_string(i) + ".png";
        CHECK(contents(folder.path / "one" / name) == contents(output / name));
        if (*mode == 0 && i < kGoodBatch - 1) CHECK(grids(output)[name] == "data " + std::string(gpus));
      }
    }
    std::vector<std::string> generate = batch(model, file, folder.path / "alone", fourth);
    generate.erase(generate.begin(), generate.begin() + 2);
    REQUIRE(cli::xdit_gen(generate, alone).code == 0);
    CHECK(contents(folder.path / "alone" / "0.png") == contents(folder.path / "one" / "3.png"));
  }
}

TEST_CASE("a line that its sampler cannot make is named, and the pictures beside it are made") {
  const Folder folder;
  const std::string file =
      folder.write("p.jsonl", R"({"prompt": "a fox", "seed": 1, "steps": 60, "scheduler": "lcm"}
{"prompt": "an owl", "seed": 2, "steps": 2, "scheduler": "ddim"}
{"prompt": "a hare", "seed": 3, "steps": 51, "scheduler": "lcm"}
{"prompt": "a fox", "seed": 4, "steps": 4, "scheduler": "pndm"}
)");
  for (const std::vector<std::string>& grid :
       {std::vector<std::string>{"--gpus", "1"}, {"--gpus", "2"}, {"--gpus", "2", "--gather", "2"}}) {
    const fs::path output = folder.path / (grid[1] + std::to_string(grid.size()));
    const Result result =
        cli::xdit_gen(batch("sd/tiny-sd15", file, output, grid), {.environment = {"OMP_NUM_THREADS=1"}});
    INFO(result.err);
    CHECK(result.code == 9);
    CHECK_THAT(result.err, ContainsSubstring("p.jsonl:1") && ContainsSubstring("p.jsonl:3") &&
                               ContainsSubstring("51 steps are more than the 50") &&
                               ContainsSubstring("2 pictures made, 2 faults"));
    CHECK(result.out == (output / "1.png").string() + "\n" + (output / "3.png").string() + "\n");
  }
}

}  // namespace xdit::launch
