#include "parallel/plan_predict.h"

#include <algorithm>
#include <cmath>

#include "parallel/plan_work.h"
#include "tests/catch.h"

namespace xdit::parallel {
namespace {

const models::Model& flux() {
  static const models::Model model = models::open("FLUX.1-dev", {}, {}, true);
  return model;
}
const models::Model& sdxl() {
  static const models::Model model = models::open("stable-diffusion-xl-base-1.0", {}, {}, true);
  return model;
}

config::RunSpec run_of(const models::Model& model, std::int64_t pixels, std::int64_t steps,
                       DType dtype = DType::kBF16) {
  config::RunSpec spec;
  spec.prompts = {"x"};
  spec.sampling.seeds = {0};
  spec.parallel.gpus = "all";
  spec.image.width = spec.image.height = pixels;
  spec.sampling.steps = steps;
  spec.sampling.cfg_scale = model.guidance_is_cfg ? 5 : 1;
  spec.model.dtype = dtype;
  return spec;
}

Prediction predicted(const models::Model& model, const config::RunSpec& spec, const std::string& machine) {
  const Machine on = read_machine(machine);
  return predict(make_plan(spec, model, on), model, on, spec).value();
}

void check_within(double predicted, double measured, double share) {
  CAPTURE(predicted, measured);
  CHECK(std::abs(predicted - measured) <= share * measured);
}

}  // namespace

TEST_CASE("the operations of a forward are those that the models are known to take") {
  const auto forward = [](const models::Model& model) {
    const Machine machine = read_machine("h100x1");
    const Plan plan = make_plan(run_of(model, 1024, 1), model, machine);
    return denoiser_work(plan, plan.ranks[0], model, plan.ranks[0].image_tokens[0]);
  };
  // FLUX.1 at 1024 x 1024: 24 width^2 operations a token and block, 4 T^2 width a block.
  const double tokens = 4608;
  const double width = 3072;
  const double fill = 24 * width * width * kFillRows * (2 * 19 + 38);  // of 19 blocks two streams
  check_within(forward(flux()).filling, fill, 1e-9);
  check_within(forward(flux()).product, 24 * width * width * tokens * 57, 1e-9);
  check_within(forward(flux()).attention, 4 * tokens * tokens * width * 57, 1e-9);
  CHECK(forward(sdxl()).shapes == 18);
  check_within(forward(sdxl()).convolution, 1.556e12, 0.001);
}

// Denoising loops and decoders measured on an H200 (700 W), 2026-11-30: tests/bench/README.md.
TEST_CASE("predictions are within 15 % of what was measured on one H200") {
  constexpr double kShare = 0.15;
  const auto denoise = [](const models::Model& model, std::int64_t steps, DType dtype) {
    return predicted(model, run_of(model, 1024, steps, dtype), "h200x1").denoise_s;
  };
  check_within(denoise(flux(), 28, DType::kBF16), 3.33, kShare);
  check_within(denoise(sdxl(), 20, DType::kF16), 0.589, kShare);
  check_within(denoise(sdxl(), 50, DType::kF16), 1.47, kShare);
  check_within(denoise(sdxl(), 20, DType::kBF16), 0.586, kShare);
  check_within(denoise(sdxl(), 50, DType::kBF16), 1.455, kShare);
  check_within(predicted(sdxl(), run_of(sdxl(), 1024, 20), "h200x1").step_s, 0.0288, kShare);
  check_within(predicted(flux(), run_of(flux(), 1024, 28), "h200x1").decode_s, 0.0277, kShare);
  check_within(predicted(sdxl(), run_of(sdxl(), 1024, 20, DType::kF16), "h200x1").decode_s, 0.0635, kShare);
  config::RunSpec fp8 = run_of(flux(), 1024, 28);
  fp8.model.quantize = config::Quantize::kFp8;
  check_within(predicted(flux(), fp8, "h200x1").denoise_s, 2.27, kShare);
  // On two.
  const auto two = [](const models::Model& model, std::int64_t steps, DType dtype) {
    return predicted(model, run_of(model, 1024, steps, dtype), "h200x2").denoise_s;
  };
  check_within(two(flux(), 28, DType::kBF16), 1.866, kShare);
  check_within(two(sdxl(), 20, DType::kF16), 0.387, kShare);
  // On an H100 (700 W), 2026-11-25.
  check_within(predicted(flux(), run_of(flux(), 2048, 28), "h100x1").denoise_s, 19.0, kShare);
  // Peaks of memory, GB.
  const auto peak = [](const models::Model& model, DType dtype) {
    return static_cast<double>(make_plan(run_of(model, 1024, 20, dtype), model, read_machine("h100x1"))
                                   .ranks[0]
                                   .peak_memory) /
           1e9;
  };
  check_within(peak(flux(), DType::kBF16), 33.9, kShare);
  check_within(peak(sdxl(), DType::kBF16), 13.6, kShare);
  check_within(peak(sdxl(), DType::kF16), 14.8, kShare);
}

TEST_CASE("ranks get what docs of the modes say they exchange") {
  // Of FLUX.1 at 1024 x 1024 a step, in MB: Ulysses; gather; tensor; pipefusion.
  const auto exchanged = [](const std::string& machine, auto degree) {
    config::RunSpec spec = run_of(flux(), 1024, 28);
    spec.parallel.*degree = static_cast<std::int64_t>(read_machine(machine).gpus.size());
    return static_cast<double>(predicted(flux(), spec, machine).exchanged.front()) / 1e6;
  };
  using P = config::RunSpec::Parallel;
  check_within(exchanged("h100x2", &P::ulysses), 1614, 0.001);
  check_within(exchanged("h100x4", &P::ulysses), 1210, 0.001);
  check_within(exchanged("h100x8", &P::ulysses), 706, 0.001);
  check_within(exchanged("h100x2", &P::gather), 1614, 0.001);
  check_within(exchanged("h100x8", &P::gather), 2824, 0.001);
  check_within(exchanged("h100x8", &P::ring), 2824, 0.001);
  check_within(exchanged("h100x2", &P::tensor), 3228, 0.001);
  check_within(exchanged("h100x8", &P::tensor), 5648, 0.001);
  check_within(exchanged("h100x2", &P::pipefusion), 28.3, 0.001);
}

TEST_CASE("where weights are sharded a rank gets the others' part of the modulations for each prompt") {
  const Machine machine = read_machine("h100x2");
  const auto plan_of = [&](config::RunSpec spec, const char* shard) {
    spec.parallel.gather = 2;
    spec.parallel.shard_weights = shard;
    Plan plan = make_plan(spec, flux(), machine);
    return std::pair{plan, predict(plan, flux(), machine, spec).value().denoise_s};
  };
  config::RunSpec one = run_of(flux(), 1024, 28);
  one.sampling.seeds = {0, 1};
  config::RunSpec two = run_of(flux(), 1024, 28);
  two.prompts = {"x", "y"};
  const auto [plan, one_s] = plan_of(one, "true");
  const double elements = prompt_traffic(plan, plan.ranks[1], flux());
  check_within(elements, 344.0 * 3072 * 3072 / 2, 1e-9);
  check_within(plan_of(two, "true").second - one_s, 2 * elements / rates_of(machine)->peer, 1e-6);
  CHECK(plan_of(two, "false").second == plan_of(one, "false").second);
}

TEST_CASE("more GPUs take less memory and time, more work takes more of it") {
  for (const models::Model* model : {&flux(), &sdxl()}) {
    const config::RunSpec spec = run_of(*model, 1024, 20);
    double before_s = 1e9;
    std::uint64_t before = ~std::uint64_t{0};
    for (const char* machine : {"h100x1", "h100x2", "h100x4", "h100x8"}) {
      const Plan plan = make_plan(spec, *model, read_machine(machine));
      const double now_s = predicted(*model, spec, machine).denoise_s;
      CHECK(now_s < before_s);
      CHECK(plan.ranks[0].peak_memory < before);
      before_s = now_s;
      before = plan.ranks[0].peak_memory;
    }
    CHECK(predicted(*model, run_of(*model, 1024, 40), "h100x1").denoise_s >
          1.5 * predicted(*model, spec, "h100x1").denoise_s);
    CHECK(predicted(*model, run_of(*model, 2048, 20), "h100x1").step_s >
          4 * predicted(*model, spec, "h100x1").step_s);
    CHECK(predicted(*model, run_of(*model, 1024, 20, DType::kF32), "h100x1").step_s >
          2 * predicted(*model, spec, "h100x1").step_s);
    CHECK(predicted(*model, spec, "a100x1").step_s > 2 * predicted(*model, spec, "h100x1").step_s);
    CHECK(predicted(*model, spec, "h200x1").step_s < predicted(*model, spec, "h100x1").step_s);
    config::RunSpec heun = spec;
    heun.sampling.scheduler = "heun";
    CHECK(predicted(*model, heun, "h100x1").denoise_s > 1.5 * predicted(*model, spec, "h100x1").denoise_s);
    config::RunSpec two = spec;
    two.parallel.gpus = "0,0";  // they take turns
    CHECK(predicted(*model, two, "h100x1").step_s > 0.9 * predicted(*model, spec, "h100x1").step_s);
  }
}

TEST_CASE("a refiner's part of the steps, its encoder, its weights and its decoder are predicted") {
  static const models::Model refiner = models::open("stable-diffusion-xl-refiner-1.0", {}, {}, true);
  config::RunSpec spec = run_of(sdxl(), 1024, 20, DType::kF16);
  spec.parallel.cfg = 2;  // the refiner alone might choose another grid
  const Machine machine = read_machine("h100x2");
  const Plan plan = make_plan(spec, sdxl(), machine);
  const Plan second = make_plan(spec, refiner, machine);
  const Prediction base = *predict(plan, sdxl(), machine, spec);
  const Prediction alone = *predict(second, refiner, machine, spec);
  const Prediction both = *predict(plan, sdxl(), machine, spec, &refiner);
  check_within(both.step_s, 0.8 * base.step_s + 0.2 * alone.step_s, 1e-9);
  const double overheads = base.denoise_s + alone.denoise_s - 20 * (base.step_s + alone.step_s);
  check_within(both.denoise_s, 20 * both.step_s + overheads, 1e-9);
  check_within(both.encode_s, base.encode_s + alone.encode_s, 1e-9);
  CHECK(both.decode_s == alone.decode_s);
  CHECK(both.write_s == alone.write_s);
  CHECK(both.start_s == base.start_s);
  CHECK(both.exchanged.size() == 2);
  spec.sampling.refiner_start = 0.5;
  check_within(predict(plan, sdxl(), machine, spec, &refiner)->step_s, 0.5 * base.step_s + 0.5 * alone.step_s,
               1e-9);

  // One goes before the other comes: the larger one's memory, and no decoder of the first.
  const auto peak = [](const Plan& of) { return of.ranks.front().peak_memory; };
  CHECK(grids(plan, sdxl(), machine, spec, &refiner).front().peak_memory ==
        std::max(peak(plan), peak(second)));
  const Plan begins = without_decoding(plan, sdxl());
  for (const RankPlan& rank : begins.ranks) {
    CHECK_FALSE(rank.networks.contains("vae"));
    CHECK(rank.networks.contains("unet"));
  }
  // Files are read one model after the other.
  const std::string folder = XDIT_TEST_DATA "/sd/";
  const models::Model small = models::open(folder + "tiny-sdxl", {}, {}, false);
  const models::Model finishes = models::open(folder + "tiny-refiner", {}, {}, false);
  const config::RunSpec tiny = run_of(small, 64, 4);
  const Plan of_small = make_plan(tiny, small, machine);
  const double first_s = predict(without_decoding(of_small, small), small, machine, tiny)->load_s;
  const double second_s = predict(make_plan(tiny, finishes, machine), finishes, machine, tiny)->load_s;
  CHECK(second_s > 0);
  check_within(predict(of_small, small, machine, tiny, &finishes)->load_s, first_s + second_s, 1e-9);
}

TEST_CASE("files are read at the rate of a disk that was measured, however many ranks share it") {
  const models::Model small = models::open(XDIT_TEST_DATA "/flux/tiny-dev", {}, {}, false);
  const config::RunSpec spec = run_of(small, 64, 4);
  const auto load_s = [&](const char* name, double disk) {
    Machine machine = read_machine(name);
    machine.measured.read = disk;
    return predict(make_plan(spec, small, machine), small, machine, spec)->load_s;
  };
  std::uint64_t bytes = 0;
  const Plan alone = make_plan(spec, small, read_machine("h100x1"));
  for (const auto& [name, network] : alone.ranks.front().networks) bytes += network.file;
  check_within(load_s("h100x1", 1e6), static_cast<double>(bytes) / 1e6, 1e-9);
  check_within(load_s("h100x2", 1e6), static_cast<double>(bytes) / 1e6, 0.01);
  CHECK(load_s("h100x2", 0) < 0.9 * load_s("h100x1", 0));
  for (const char* name : {"h100x1", "h100x2"}) CHECK(load_s(name, 1e12) == load_s(name, 0));  // page cache
}

TEST_CASE("the rank with the longest schedules sets the pace of pictures with unlike steps") {
  config::RunSpec spec = run_of(flux(), 1024, 40);
  spec.parallel.data = 2;
  const Machine machine = read_machine("h100x2");
  const auto denoise_s = [&](const std::vector<std::int64_t>& steps) {
    spec.variants.clear();
    spec.listed.clear();
    for (std::size_t i = 0; i < steps.size(); ++i) {
      spec.sampling.steps = steps[i];
      spec.variants.push_back({spec.sampling, {}});
      spec.listed.push_back({.index = std::ssize(spec.listed), .prompt = "x", .seed = 0, .variant = i});
    }
    return predict(make_plan(spec, flux(), machine), flux(), machine, spec)->denoise_s;
  };
  // Pictures go to ranks in turn.
  CHECK(denoise_s({40, 4, 4, 40}) == denoise_s({44, 44}));
  CHECK(denoise_s({40, 4, 40, 4}) == denoise_s({80, 8}));
  CHECK(denoise_s({40, 10}) == denoise_s({40, 40}));
}

TEST_CASE("no prediction for CPU ranks and unknown GPUs, until they were measured") {
  config::RunSpec spec = run_of(flux(), 1024, 28);
  Machine machine = read_machine("h100x1");
  machine.gpus[0].name = "NVIDIA Z9";
  CHECK_FALSE(predict(make_plan(spec, flux(), machine), flux(), machine, spec));
  machine.measured.product = 3.75e14;  // half an H100
  machine.measured.memory = 3.35e12;
  const double slow = predict(make_plan(spec, flux(), machine), flux(), machine, spec)->step_s;
  check_within(slow, 2 * predicted(flux(), spec, "h100x1").step_s, 0.1);
  spec.runtime.device = config::Device::kCpu;
  machine.host_memory = std::uint64_t{1} << 40U;
  CHECK_FALSE(predict(make_plan(spec, flux(), machine), flux(), machine, spec));
}

TEST_CASE("the chosen grid is compared with every other, which says why it lost") {
  for (const auto& [model, gpus] : {std::pair{&flux(), "h100x2"}, {&flux(), "h100x8"}, {&sdxl(), "h100x8"}}) {
    const Machine machine = read_machine(gpus);
    const config::RunSpec spec = run_of(*model, 1024, 28);
    const Plan plan = make_plan(spec, *model, machine);
    const std::vector<Grid> all = grids(plan, *model, machine, spec);
    CHECK(all.front().mesh == plan.mesh);
    CHECK(all.front().why_not.empty());
    for (std::size_t i = 1; i < all.size(); ++i) {
      CAPTURE(name_of(all[i]));
      CHECK_FALSE(all[i].why_not.empty());
      CHECK(all[i].mesh.size() == plan.mesh.size());
      // The automatic choice is the fastest exact one.
      if (all[i].peak_memory > 0 && all[i].grade == config::Allow::kExact)
        CHECK(all[i].prediction->total_s() >= all.front().prediction->total_s());
    }
    const auto has = [&](const std::string& name) {
      return std::any_of(all.begin(), all.end(), [&](const Grid& grid) { return name_of(grid) == name; });
    };
    if (model == &flux()) CHECK(has(gpus == std::string("h100x2") ? "tensor 2" : "gather 2 x ulysses 4"));
  }
  config::RunSpec several = run_of(flux(), 1024, 28);
  several.image.count = 5;
  CHECK(make_plan(several, flux(), read_machine("h100x4")).mesh ==
        Mesh{.data = 2, .gather = 2});  // not 2 + 1 + 1 + 1
  config::RunSpec free = run_of(flux(), 1024, 28);
  const auto chosen = [&] { return make_plan(free, flux(), read_machine("h100x8")); };
  CHECK(chosen().grade == config::Allow::kExact);
  free.parallel.allow = config::Allow::kRounding;
  CHECK(chosen().grade == config::Allow::kRounding);
  CHECK(predict(chosen(), flux(), read_machine("h100x8"), free)->total_s() <
        predicted(flux(), run_of(flux(), 1024, 28), "h100x8").total_s());
  free.parallel.allow = config::Allow::kExact;
  free.parallel.ring = 2;  // asked for, it is allowed
  CHECK(chosen().mesh.ring == 2);
  CHECK(chosen().mesh.tensor == 1);

  config::RunSpec asked = run_of(flux(), 1024, 28);
  asked.parallel.tensor = 2;
  const Machine machine = read_machine("h100x4");
  for (const Grid& grid : grids(make_plan(asked, flux(), machine), flux(), machine, asked))
    CHECK(grid.mesh.tensor == 2);
}

}  // namespace xdit::parallel
