// The profiles of configs/, planned at full size for a machine of eight GPUs.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "config/batch_file.h"
#include "config/sweep_profile.h"
#include "parallel/plan.h"
#include "tests/catch.h"

namespace xdit::parallel {
namespace {

namespace fs = std::filesystem;
using config::Layer;

const fs::path kConfigs = XDIT_SOURCE "/configs";

Machine eight_gpus(std::uint64_t gb) {
  return {.gpus = std::vector<Gpu>(8, {.name = "GPU", .uuid = "GPU-0", .memory = gb * 1'000'000'000}),
          .host_memory = std::uint64_t{1} << 40U,
          .cores = 8};
}

Plan plan_of(const std::vector<Layer>& layers, std::uint64_t gb) {
  const config::RunSpec spec = config::resolve(layers, [] { return std::uint64_t{0}; }).spec;
  const Machine machine = eight_gpus(gb);
  const auto plan = [&](const std::string& model) {
    return make_plan(spec, models::open(model, {}, {}, /*dummy=*/true), machine);
  };
  if (!spec.model.refiner.empty()) CHECK_FALSE(plan(spec.model.refiner).ranks.empty());
  const bool file = fs::path(spec.model.path).extension() == ".safetensors";
  return plan(file ? "stabilityai/stable-diffusion-xl-base-1.0" : spec.model.path);
}

}  // namespace

TEST_CASE("each profile in configs/ plans a run on its model at full size, exact but for two") {
  std::size_t profiles = 0;
  for (const fs::directory_entry& file : fs::directory_iterator(kConfigs)) {
    const std::string name = file.path().stem().string();
    if (file.path().extension() != ".yaml" || name == "sweep" || name == "batch") continue;
    CAPTURE(name);
    const Plan plan = plan_of({config::read_profile(file.path())}, 80);
    const bool approximate = name == "flux-dev-pipefusion" || name == "sdxl-displaced";
    CHECK(plan.grade == (approximate ? config::Allow::kApproximate : config::Allow::kExact));
    CHECK(plan.notes.empty() == !approximate);
    if (name == "flux-dev-all-gpus") CHECK(plan.mesh.ulysses == 8);
    if (name == "flux-dev-pipefusion") CHECK(plan.mesh.pipefusion == 4);
    if (name == "sdxl-all-gpus") CHECK(plan.ranks.size() == 8);
    if (name == "sdxl-fast" || name == "flux-dev-true-cfg") CHECK(plan.mesh.cfg == 2);
    ++profiles;
  }
  CHECK(profiles == 15);
}

TEST_CASE("configs/flux-dev-2048.yaml fits GPUs of 24 GB, which do not hold the model") {
  const Layer profile = config::read_profile(kConfigs / "flux-dev-2048.yaml");
  CHECK(plan_of({profile}, 24).ranks.size() == 2);
  Layer whole = profile;
  whole.push_back(
      {.key = "parallel.shard_weights", .values = {"false"}, .where = {}, .code = ExitCode::kUsage});
  CHECK_THROWS_WITH(plan_of({whole}, 24), ContainsSubstring("needs "));
}

TEST_CASE("configs/sweep.yaml and configs/batch.jsonl: every point and line plans") {
  const config::SweepProfile sweep = config::read_sweep_profile(kConfigs / "sweep.yaml");
  std::vector<std::size_t> ranks;
  for (const Layer& point : config::points_of(sweep.axes))
    ranks.push_back(plan_of({sweep.base, point}, 80).ranks.size());
  CHECK(ranks == std::vector<std::size_t>{1, 1, 2, 2, 4, 4, 8, 8});

  std::ifstream file(kConfigs / "batch.jsonl");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const Layer shared = config::read_profile(kConfigs / "batch.yaml");
  const std::vector<config::BatchLine> lines =
      config::read_batch(text, "batch.jsonl", config::BatchFormat::kJsonl);
  CHECK(lines.size() == 3);
  for (const config::BatchLine& line : lines) CHECK(plan_of({shared, line.settings}, 80).ranks.size() == 8);
}

}  // namespace xdit::parallel
