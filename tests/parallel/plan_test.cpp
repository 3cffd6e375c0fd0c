#include "parallel/plan.h"

#include "core/error.h"
#include "tests/catch.h"

namespace xdit::parallel {
namespace {

constexpr std::uint64_t kGb = 1'000'000'000;

config::RunSpec spec_on(const std::string& gpus) {
  config::RunSpec spec;
  spec.prompts = {"x"};
  spec.sampling.seeds = {0};
  spec.parallel.gpus = gpus;
  return spec;
}

Machine machine_of(std::size_t gpus, std::uint64_t memory) {
  return {.gpus = std::vector<Gpu>(gpus, {.name = "H100", .uuid = "GPU-0", .memory = memory}),
          .host_memory = 64 * kGb,
          .cores = 8};
}

const models::Model& flux_dev() {
  static const models::Model model = models::open("FLUX.1-dev", {}, {}, true);
  return model;
}

TEST_CASE("FLUX.1-dev at 1024 x 1024 on one GPU") {
  const Plan plan = make_plan(spec_on("1"), flux_dev(), machine_of(1, 80 * kGb));
  CHECK(plan.mesh.size() == 1);
  CHECK(plan.image_tokens == 4096);
  CHECK(plan.text_tokens == 512);
  REQUIRE(plan.ranks.size() == 1);
  const RankPlan& rank = plan.ranks[0];
  CHECK(rank.blocks.count == 57);
  CHECK(rank.latent_rows.count == 128);
  // Published: 11.90 billion parameters in the transformer, 4.76 in T5-XXL's encoder, 123 million in CLIP-L.
  CHECK(rank.networks.at("transformer").memory == 2 * std::uint64_t{11'901'408'320});
  CHECK(rank.networks.at("text_encoder_2").memory == 2 * std::uint64_t{4'762'310'656});
  CHECK(rank.networks.at("text_encoder").memory == 2 * std::uint64_t{123'060'480});
  CHECK(rank.overlap_loading);
  CHECK(rank.peak_memory > 33 * kGb);
}

TEST_CASE("networks take turns where they do not fit beside each other, and what never fits is refused") {
  const Plan plan = make_plan(spec_on("1"), flux_dev(), machine_of(1, 32 * kGb));
  CHECK_FALSE(plan.ranks[0].overlap_loading);
  CHECK(plan.ranks[0].peak_memory < 32 * kGb);
  try {
    static_cast<void>(make_plan(spec_on("1"), flux_dev(), machine_of(1, 16 * kGb)));
    FAIL("it fits");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kMemory);
    CHECK_THAT(error.what(), ContainsSubstring("16.0 GB"));
  }
}

TEST_CASE("the plan counts pictures and takes the device that was named") {
  config::RunSpec spec = spec_on("1,");
  spec.prompts = {"a", "b"};
  spec.sampling.seeds = {1, 2, 3};
  spec.image.count = 2;
  const Plan plan = make_plan(spec, flux_dev(), machine_of(2, 80 * kGb));
  CHECK(plan.ranks[0].device == 1);
  CHECK(plan.ranks[0].pictures.count == 12);
  CHECK_THAT(to_text(plan, flux_dev(), machine_of(2, 80 * kGb), spec),
             ContainsSubstring("rank 0 on GPU 1 (H100)"));
}

TEST_CASE("what a machine or model does not have is an error that says what it has") {
  const auto message = [](const config::RunSpec& spec, const Machine& machine, ExitCode code) {
    try {
      static_cast<void>(make_plan(spec, flux_dev(), machine));
    } catch (const Error& error) {
      CHECK(error.code() == code);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK_THAT(message(spec_on("all"), machine_of(0, 0), ExitCode::kDevice), ContainsSubstring("--device cpu"));
  CHECK_THAT(message(spec_on("3,"), machine_of(2, 80 * kGb), ExitCode::kDevice),
             ContainsSubstring("no GPU 3"));
  config::RunSpec spec = spec_on("1");
  spec.parallel.ulysses = 2;
  CHECK_THAT(message(spec, machine_of(1, 80 * kGb), ExitCode::kUsage), ContainsSubstring("multiply to 2"));
}

}  // namespace
}  // namespace xdit::parallel
