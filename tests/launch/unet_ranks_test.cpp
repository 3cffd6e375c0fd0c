// Pictures of SDXL and Stable Diffusion do not depend on the ranks that make them.
#include "tests/catch.h"
#include "tests/launch/tiny_run.h"
#include "tests/scratch.h"

namespace xdit::launch {

TEST_CASE("pictures of a UNet do not depend on the number of ranks that share its rows and branches") {
  const bool all = std::getenv("XDIT_TEST_FULL") != nullptr;
  struct Picture {
    const char* model;
    const char* scheduler;
    config::RunSpec::Image image;
    std::vector<std::int64_t> ranks;
  };
  const std::vector<Picture> pictures{
      {"tiny-sdxl", "euler-ancestral", {.width = 72, .height = 104, .count = 1}, {2, 3, 6}},
      {"tiny-sd15", "pndm", {.width = 40, .height = 24, .count = 1}, {4, 7, 8}},  // 3 rows of latents
      {"tiny-sd21", "ddim", {.width = 56, .height = 40, .count = 2}, {5, 8}}};
  for (const Picture& c : pictures) {
    const models::Model model = open_tiny(std::filesystem::path(XDIT_TEST_DATA "/sd") / c.model);
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      const auto made = [&, type = dtype](std::int64_t ranks) {
        const tests::Scratch folder;
        Heard heard;
        config::RunSpec spec = small_spec(folder.path(), ranks);
        spec.prompts = {"a lighthouse on a cliff at dawn"};
        spec.image = c.image;
        spec.model.dtype = type;
        spec.sampling.scheduler = c.scheduler;
        spec.sampling.cfg_scale = 5;
        if (ranks % 3 == 0) spec.runtime.warm_up = "true";
        const Outcome outcome = run(spec, model, heard, heard.stop);
        CHECK(outcome.report.ranks.size() == static_cast<std::size_t>(ranks));
        return pngs(folder.path());
      };
      const std::vector<std::string> alone = made(1);
      for (const std::int64_t ranks : all ? std::vector<std::int64_t>{2, 3, 4, 5, 6, 7, 8} : c.ranks) {
        CAPTURE(c.model, static_cast<int>(dtype), ranks);
        CHECK((made(ranks) == alone));
      }
    }
  }
}

TEST_CASE("nor on which ranks hold which rows, branches, pictures and weights of a UNet") {
  const models::Model model = open_tiny(XDIT_TEST_DATA "/sd/tiny-sdxl");
  const auto made = [&](const config::RunSpec::Parallel& parallel, std::int64_t ranks) {
    const tests::Scratch folder;
    Heard heard;
    config::RunSpec spec = small_spec(folder.path(), ranks);
    spec.image = {.width = 56, .height = 40, .count = 1};
    spec.sampling.scheduler = "dpm++-2m-sde";
    spec.sampling.cfg_scale = 3;
    spec.parallel = parallel;
    spec.parallel.gpus = std::to_string(ranks);
    static_cast<void>(run(spec, model, heard, heard.stop));
    return pngs(folder.path());
  };
  const std::vector<std::string> alone = made({}, 1);
  CHECK(alone.size() == 2);
  for (const auto& [parallel, ranks] : std::vector<std::pair<config::RunSpec::Parallel, std::int64_t>>{
           {{.data = 1, .cfg = 1, .gather = 3, .vae = 2, .shard_weights = "true"}, 3},
           {{.data = 1, .cfg = 2, .gather = 2, .vae = 1}, 4},
           {{.data = 2, .cfg = 1, .gather = 2, .shard_weights = "true"}, 4},
           {{.data = 2, .cfg = 2, .gather = 2, .shard_weights = "true"}, 8}}) {
    CAPTURE(ranks, parallel.shard_weights);
    CHECK((made(parallel, ranks) == alone));
  }
}

TEST_CASE(
    "displaced rows: the same bytes again and beside other pictures, and the exact ones while they warm up") {
  const models::Model model = open_tiny(XDIT_TEST_DATA "/sd/tiny-sdxl");
  const auto made = [&](const config::RunSpec::Parallel& parallel, std::int64_t ranks) {
    const tests::Scratch folder;
    Heard heard;
    config::RunSpec spec = small_spec(folder.path(), ranks);
    spec.prompts.pop_back();
    spec.image = {.width = 56, .height = 88, .count = 2};
    spec.sampling.scheduler = "heun";  // two evaluations a step
    spec.sampling.steps = 3;
    spec.sampling.cfg_scale = 3;
    spec.output.metadata = false;
    spec.parallel = parallel;
    spec.parallel.gpus = std::to_string(ranks);
    const Outcome outcome = run(spec, model, heard, heard.stop);
    const bool displaced = parallel.patch == config::Patch::kDisplaced && parallel.patch_warmup < 3;
    CHECK((outcome.plan.grade == config::Allow::kApproximate) == displaced);
    CHECK(heard.warnings.size() == (displaced ? 1 : 0));
    return pngs(folder.path());
  };
  const config::RunSpec::Parallel two{
      .data = 1, .cfg = 1, .gather = 2, .patch = config::Patch::kDisplaced, .patch_warmup = 1};
  const std::vector<std::string> alone = made({}, 1), displaced = made(two, 2);
  CHECK(displaced.size() == 2);
  CHECK(displaced[0] != alone[0]);
  CHECK((made(two, 2) == displaced));
  config::RunSpec::Parallel others = two;
  others.cfg = 2;
  CHECK((made(others, 4) == displaced));  // prompts on ranks of their own
  others = two;
  others.data = 2;
  CHECK((made(others, 4) == displaced));  // pictures, too
  others = two;
  others.patch_warmup = 3;
  CHECK((made(others, 2) == alone));
}

TEST_CASE("nor do pictures that a refiner finishes, alone and in a batch") {
  const models::Model model = open_tiny(XDIT_TEST_DATA "/sd/tiny-sdxl");
  const models::Model refiner = open_tiny(XDIT_TEST_DATA "/sd/tiny-refiner");
  const auto spec_in = [](const std::filesystem::path& folder, std::int64_t ranks) {
    config::RunSpec spec = small_spec(folder, ranks);
    spec.model.refiner = "tiny-refiner";
    spec.image = {.width = 56, .height = 40, .count = 1};
    spec.sampling.scheduler = "euler-ancestral";  // draws in both stages
    spec.sampling.steps = 3;
    spec.sampling.refiner_start = 0.5;
    spec.sampling.cfg_scale = 3;
    return spec;
  };
  const auto made = [&](std::int64_t ranks) {
    const tests::Scratch folder;
    Heard heard;
    static_cast<void>(run(spec_in(folder.path(), ranks), {model, &refiner}, heard, heard.stop));
    CHECK(heard.pictures == 2);
    return pngs(folder.path());
  };
  const std::vector<std::string> alone = made(1);
  CHECK(alone.size() == 2);
  for (const std::int64_t ranks : {2, 3, 4}) {
    CAPTURE(ranks);
    CHECK((made(ranks) == alone));
  }
  const tests::Scratch folder;
  Heard heard;
  const parallel::Machine machine = this_machine();
  std::vector<PlannedJob> jobs;
  for (const config::Picture& picture : config::pictures(spec_in(folder.path(), 2))) {
    config::RunSpec spec = spec_in(folder.path(), 2);
    spec.listed = {picture};
    jobs.push_back(plan_jobs(spec, {model, &refiner}, machine).front());
  }
  const std::vector<std::filesystem::path> paths{folder.path() / "0.png", folder.path() / "1.png"};
  static_cast<void>(
      run_jobs(jobs, {model, &refiner}, weights::model_hash(model.files), paths, machine, heard, heard.stop));
  CHECK((pngs(folder.path()) == alone));
}

}  // namespace xdit::launch
