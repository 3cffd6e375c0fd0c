#include "launch/survivors.h"

#include "parallel/plan.h"
#include "tests/catch.h"

namespace xdit::launch {
namespace {

const models::Model& flux() {
  static const models::Model model = models::open("FLUX.1-dev", {}, {}, true);
  return model;
}

// Four H100s, GPU-0 to GPU-3, without those named.
parallel::Machine machine_without(const std::set<std::string>& lost = {}) {
  parallel::Machine machine = parallel::read_machine("h100x4");
  for (std::size_t i = 0; i < machine.gpus.size(); ++i) machine.gpus[i].uuid = "GPU-" + std::to_string(i);
  std::erase_if(machine.gpus, [&](const parallel::Gpu& gpu) { return lost.contains(gpu.uuid); });
  return machine;
}

config::RunSpec run_on(const std::string& gpus) {
  config::RunSpec spec;
  spec.prompts = {"x"};
  spec.sampling.seeds = {0};
  spec.parallel.gpus = gpus;
  return spec;
}

}  // namespace

TEST_CASE("a GPU that fails once may do better; one that fails twice is named and left out") {
  const config::RunSpec spec = run_on("all");
  const parallel::Machine machine = machine_without();
  Survivors gpus(spec, machine);
  CHECK(gpus.failed({.rank = 1, .gpu = "GPU-1"}).empty());
  CHECK(gpus.failed({.rank = 2, .gpu = "GPU-2"}).empty());
  CHECK(gpus.take(spec, flux(), machine) == spec);
  CHECK_THAT(gpus.failed({.rank = 0, .gpu = "GPU-1"}),
             ContainsSubstring("GPU 1 (NVIDIA H100 80GB HBM3, GPU-1) has failed 2 times"));
  CHECK(gpus.take(spec, flux(), machine).parallel.gpus == "0,2,3");
  CHECK_FALSE(gpus.failed({.rank = 1, .gpu = "GPU-2"}).empty());
  CHECK(gpus.take(spec, flux(), machine).parallel.gpus == "0,3");
  CHECK(gpus.failed({.rank = 0, .gpu = "GPU-2"}).empty());  // told already
  for (const char* gpu : {"GPU-0", "GPU-0"}) static_cast<void>(gpus.failed({.rank = 0, .gpu = gpu}));
  CHECK(gpus.take(spec, flux(), machine).parallel.gpus == "3,");
  for (const char* gpu : {"GPU-3", "GPU-3"}) static_cast<void>(gpus.failed({.rank = 0, .gpu = gpu}));
  CHECK(gpus.take(spec, flux(), machine) == spec);  // none is left: the plan's own error says what is wrong
}

TEST_CASE(
    "GPUs that the machine shows no more are named once; the others keep their places, not their numbers") {
  const config::RunSpec spec = run_on("3,0,2");
  Survivors gpus(spec, machine_without());
  CHECK(gpus.lost(machine_without()).empty());
  const parallel::Machine now = machine_without({"GPU-0", "GPU-1"});  // the latter is nobody's
  const std::vector<std::string> lines = gpus.lost(now);
  REQUIRE(lines.size() == 1);
  CHECK_THAT(lines[0], ContainsSubstring("GPU 0 (NVIDIA H100 80GB HBM3, GPU-0) is lost"));
  CHECK(gpus.lost(now).empty());
  const config::RunSpec smaller = gpus.take(spec, flux(), now);
  CHECK(smaller.parallel.gpus == "1,0");  // GPU-3 and GPU-2
  CHECK(parallel::make_plan(smaller, flux(), now).ranks.size() == 2);
}

TEST_CASE("a grid that is asked for may want fewer GPUs than are left") {
  config::RunSpec spec = run_on("4");
  spec.parallel.ulysses = 2;
  spec.parallel.gather = 1;
  spec.parallel.cfg = 1;
  spec.image.count = 4;
  Survivors gpus(spec, machine_without());
  const parallel::Machine now = machine_without({"GPU-3"});
  CHECK(gpus.lost(now).size() == 1);
  CHECK(gpus.take(spec, flux(), now).parallel.gpus == "0,1");
  spec.parallel.data = 2;  // exactly four
  CHECK(gpus.take(spec, flux(), now) == spec);
  CHECK_THROWS_WITH(parallel::make_plan(gpus.take(spec, flux(), now), flux(), now),
                    ContainsSubstring("no GPU 3: this machine shows 3"));
}

TEST_CASE("ranks on the CPU are named by their numbers; GPUs that never were are the plan's to refuse") {
  config::RunSpec spec = run_on("2");
  spec.runtime.device = config::Device::kCpu;
  Survivors ranks(spec, {});
  CHECK(ranks.failed({.rank = 1, .gpu = {}}).empty());
  CHECK(ranks.failed({.rank = 0, .gpu = {}}).empty());
  CHECK(ranks.failed({.rank = 1, .gpu = {}}) == "rank 1 has failed 2 times");
  CHECK(ranks.failed({.rank = 1, .gpu = {}}) == "rank 1 has failed 3 times");
  CHECK(ranks.lost({}).empty());
  CHECK(ranks.take(spec, flux(), {}) == spec);
  Survivors nobody(run_on("9"), machine_without());
  CHECK(nobody.lost(machine_without()).empty());
}

}  // namespace xdit::launch
