// Which ranks do what, where the user does not say, and which degrees are refused.
#include "core/error.h"
#include "parallel/plan.h"
#include "tests/catch.h"

namespace xdit::parallel {
namespace {

config::RunSpec spec_of(std::int64_t pictures, double cfg_scale) {
  config::RunSpec spec;
  spec.prompts = {"x"};
  spec.sampling.seeds = {0};
  spec.sampling.cfg_scale = cfg_scale;
  spec.image.count = pictures;
  spec.runtime.device = config::Device::kCpu;
  return spec;
}

models::Shape shape_of(std::int64_t heads) {
  return {.width = 8 * heads, .heads = heads, .blocks = 5};
}

std::vector<std::int64_t> degrees(const config::RunSpec& spec, std::int64_t heads, std::int64_t ranks) {
  const Mesh mesh = choose_mesh(spec, shape_of(heads), ranks);
  CHECK(mesh.size() == ranks);
  return {mesh.data, mesh.cfg, mesh.gather, mesh.ulysses};
}

std::string refusal(const config::RunSpec& spec, std::int64_t heads, std::int64_t ranks,
                    bool by_rows = false) {
  models::Shape shape = shape_of(heads);
  shape.by_rows = by_rows;
  try {
    static_cast<void>(choose_mesh(spec, shape, ranks));
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kUsage);
    return error.what();
  }
  return "no error";
}

using Degrees = std::vector<std::int64_t>;

TEST_CASE("pictures come first, then branches, then heads, then tokens") {
  CHECK(degrees(spec_of(1, 1), 24, 1) == Degrees{1, 1, 1, 1});
  CHECK(degrees(spec_of(8, 1), 24, 8) == Degrees{8, 1, 1, 1});
  CHECK(degrees(spec_of(2, 1), 24, 8) == Degrees{2, 1, 1, 4});
  CHECK(degrees(spec_of(1, 1), 24, 8) == Degrees{1, 1, 1, 8});
  CHECK(degrees(spec_of(1, 2), 24, 8) == Degrees{1, 2, 1, 4});
  CHECK(degrees(spec_of(1, 1), 24, 7) == Degrees{1, 1, 7, 1});
  CHECK(degrees(spec_of(1, 1), 3, 6) == Degrees{1, 1, 2, 3});
  CHECK(degrees(spec_of(3, 2), 4, 6) == Degrees{3, 2, 1, 1});
}

TEST_CASE("every count of ranks has a mesh") {
  for (std::int64_t ranks = 1; ranks <= 8; ++ranks)
    for (const std::int64_t pictures : {1, 2, 3, 9})
      for (const double cfg_scale : {1.0, 2.0})
        for (const std::int64_t heads : {1, 3, 4, 24})
          CHECK(choose_mesh(spec_of(pictures, cfg_scale), shape_of(heads), ranks).size() == ranks);
}

TEST_CASE("what is asked for is kept, and the rest is chosen around it") {
  config::RunSpec spec = spec_of(1, 1);
  spec.parallel.gather = 2;
  CHECK(degrees(spec, 24, 8) == Degrees{1, 1, 2, 4});
  spec.parallel.ulysses = 1;
  spec.parallel.data = 1;
  CHECK_THAT(refusal(spec, 24, 8), ContainsSubstring("multiply to 2"));
}

TEST_CASE("degrees that cannot be are refused with those that can") {
  config::RunSpec spec = spec_of(1, 1);
  spec.parallel.ulysses = 5;
  CHECK_THAT(refusal(spec, 24, 5), ContainsSubstring("1, 2, 3, 4, 6, 8, 12, 24"));
  spec = spec_of(1, 1);
  spec.parallel.cfg = 2;
  CHECK_THAT(refusal(spec, 24, 2), ContainsSubstring("--cfg-scale"));
  spec = spec_of(1, 1);
  spec.parallel.tensor = 2;
  spec.parallel.ulysses = 3;
  CHECK_THAT(refusal(spec, 4, 6), ContainsSubstring("1, 2, 4"));
  spec = spec_of(1, 1);
  spec.parallel.ring = spec.parallel.gather = 2;
  CHECK_THAT(refusal(spec, 24, 4), ContainsSubstring("--gather 4"));
  spec.parallel.gather = {};
  spec.parallel.pipefusion = 2;
  CHECK_THAT(refusal(spec, 24, 4), ContainsSubstring("--gather 2"));
  spec = spec_of(1, 1);
  spec.parallel.pipefusion = 6;
  CHECK_THAT(refusal(spec, 24, 6), ContainsSubstring("has 5 blocks"));
}

TEST_CASE("only exact modes are chosen, and the others say what they do") {
  config::RunSpec spec = spec_of(1, 1);
  for (std::int64_t ranks = 1; ranks <= 8; ++ranks)
    CHECK(grade_of(choose_mesh(spec, shape_of(24), ranks), false, 1, 28) == config::Allow::kExact);
  CHECK(grade_of({.ring = 2}, false, 1, 28) == config::Allow::kRounding);
  CHECK(grade_of({.tensor = 2}, false, 1, 28) == config::Allow::kRounding);
  CHECK(grade_of({.pipefusion = 2}, false, 1, 28) == config::Allow::kApproximate);
  CHECK(grade_of({.pipefusion = 2}, false, 28, 28) == config::Allow::kExact);
  CHECK(grade_of({.gather = 2}, true, 4, 28) == config::Allow::kApproximate);
  CHECK(grade_of({.gather = 2}, true, 28, 28) == config::Allow::kExact);
}

TEST_CASE("a UNet is spread by pictures, branches and rows only, whatever the count of ranks") {
  const models::Shape unet{.pixels_per_token = 8, .width = 40, .heads = 24, .blocks = 5, .by_rows = true};
  for (std::int64_t ranks = 1; ranks <= 8; ++ranks)
    for (const double cfg_scale : {1.0, 5.0}) {
      const Mesh mesh = choose_mesh(spec_of(1, cfg_scale), unet, ranks);
      const std::int64_t branches = cfg_scale > 1 && ranks % 2 == 0 ? 2 : 1;
      CAPTURE(ranks, cfg_scale);
      CHECK(Degrees{mesh.cfg, mesh.gather, mesh.size()} == Degrees{branches, ranks / branches, ranks});
    }
  CHECK(choose_mesh(spec_of(4, 5), unet, 8).data == 4);
  for (const auto degree : {&config::RunSpec::Parallel::ulysses, &config::RunSpec::Parallel::ring,
                            &config::RunSpec::Parallel::tensor, &config::RunSpec::Parallel::pipefusion}) {
    config::RunSpec spec = spec_of(1, 1);
    spec.parallel.*degree = 2;
    try {
      static_cast<void>(choose_mesh(spec, unet, 2));
      FAIL("not refused");
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kUsage);
      CHECK_THAT(error.what(), ContainsSubstring("rows of the picture") && ContainsSubstring("--gather 2"));
    }
  }
}

TEST_CASE("rows are displaced where they are asked to be and are spread, and it is said what that takes") {
  const models::Model model = models::open("sdxl", {}, {}, true);
  const Machine machine{.gpus = {}, .host_memory = std::uint64_t{1} << 40U, .cores = 1};
  config::RunSpec spec = spec_of(1, 5);
  spec.image = {.width = 1024, .height = 1024, .count = 1};
  spec.parallel.gpus = "4";  // two branches of two ranks
  const Plan exact = make_plan(spec, model, machine);
  CHECK_FALSE(exact.displaced);
  spec.parallel.patch = config::Patch::kDisplaced;
  const Plan displaced = make_plan(spec, model, machine);
  CHECK(displaced.grade == config::Allow::kApproximate);
  CHECK(displaced.warmup == 4);
  CHECK(displaced.mesh == exact.mesh);
  CHECK_THAT(to_text(displaced, model, machine, spec), ContainsSubstring("after 4 steps"));
  // Twice: 10 layers of 64 x 64 tokens of 640 channels, 60 of 32 x 32 of 1280, K and V in bfloat16; edges and
  // statistics are small beside them.
  const std::uint64_t keys = std::uint64_t{2} * 2 * 2 * 4096 * 640 * (10 + 60 / 2);
  const std::uint64_t more = displaced.ranks[3].peak_memory - exact.ranks[3].peak_memory;
  CHECK(more > keys);
  CHECK(more < keys + keys / 10);
  spec.parallel.patch_warmup = 1000;  // more than there are
  CHECK(make_plan(spec, model, machine).grade == config::Allow::kExact);

  spec.parallel.gather = 1;
  spec.parallel.data = 2;
  CHECK_THAT(refusal(spec, 24, 4, true),
             ContainsSubstring("whole pictures") && ContainsSubstring("--gather"));
  CHECK_THAT(refusal(spec, 24, 4, false),
             ContainsSubstring("only a UNet") && ContainsSubstring("--pipefusion"));
}

TEST_CASE("rows of latents stay whole") {
  const models::Model model = models::open(std::string(XDIT_TEST_DATA) + "/sd/tiny-sdxl", {}, {}, false);
  for (std::int64_t ranks = 1; ranks <= 8; ++ranks) {
    config::RunSpec spec = spec_of(1, 1);
    spec.image = {.width = 56, .height = 40, .count = 1};  // 5 rows of 7
    spec.parallel.gpus = std::to_string(ranks);
    const Plan plan =
        make_plan(spec, model, {.gpus = {}, .host_memory = std::uint64_t{1} << 40U, .cores = 1});
    std::int64_t next = 0;
    for (const RankPlan& rank : plan.ranks) {
      REQUIRE(rank.image_tokens.size() == 1);
      CHECK(rank.image_tokens.front().first == next);
      CHECK(rank.image_tokens.front().count % 7 == 0);
      CHECK(rank.text_tokens.count == 0);
      next = rank.image_tokens.front().end();
    }
    CHECK(next == 35);
  }
}

TEST_CASE("the tokens of a picture are all held, once, and one rank decodes it") {
  const models::Model model = models::open("FLUX.1-dev", {}, {}, true);
  const Machine machine{.gpus = {}, .host_memory = std::uint64_t{1} << 40U, .cores = 8};
  for (std::int64_t ranks = 1; ranks <= 8; ++ranks) {
    config::RunSpec spec = spec_of(1, 2);
    spec.parallel.gpus = std::to_string(ranks);
    const Plan plan = make_plan(spec, model, machine);
    std::int64_t text = 0, image = 0, decoding = 0;
    for (const RankPlan& rank : plan.ranks) {
      text += rank.text_tokens.count;
      for (const Range& band : rank.image_tokens) image += band.count;
      decoding += rank.decodes ? 1 : 0;
    }
    CAPTURE(ranks);
    CHECK(text == 512 * plan.mesh.cfg);
    CHECK(image == 4096 * plan.mesh.cfg);
    CHECK(decoding == 1);
  }
}

}  // namespace
}  // namespace xdit::parallel
