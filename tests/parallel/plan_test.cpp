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

TEST_CASE("the matrices of blocks in fp8") {
  config::RunSpec spec = spec_on("1");
  spec.model.quantize = config::Quantize::kFp8;
  const Plan plan = make_plan(spec, flux_dev(), machine_of(1, 80 * kGb));
  CHECK(plan.quantised);
  // 12 width^2 weights a stream and block: two streams in 19 of them, one in 38.
  constexpr std::uint64_t kMatrices = std::uint64_t{12} * 3072 * 3072 * (2 * 19 + 38);
  constexpr std::uint64_t kOutputs = (9216 + 3072 + 12288 + 3072) * 2 * 19 + (9216 + 12288 + 3072) * 38;
  const NetworkBytes& transformer = plan.ranks[0].networks.at("transformer");
  CHECK(transformer.memory == 2 * std::uint64_t{11'901'408'320} - kMatrices + 4 * kOutputs);
  CHECK(transformer.unquantised == 2 * kMatrices);
  CHECK(plan.ranks[0].networks.at("text_encoder_2").unquantised == 0);
  CHECK(plan.ranks[0].peak_memory >
        make_plan(spec_on("1"), flux_dev(), machine_of(1, 80 * kGb)).ranks[0].peak_memory);

  const auto refused = [&](const models::Model& model) {
    try {
      static_cast<void>(make_plan(spec, model, machine_of(2, 80 * kGb)));
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kUsage);
      return error.where() + " " + error.fix();
    }
    return std::string();
  };
  Machine older = machine_of(1, 80 * kGb);
  older.gpus[0].capability = 89;
  try {
    static_cast<void>(make_plan(spec, flux_dev(), older));
    FAIL("no GPU but Hopper has such products");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kDevice);
  }
  try {
    static_cast<void>(make_plan(spec, flux_dev(), machine_of(1, 32 * kGb)));
    FAIL("both forms fit");
  } catch (const Error& error) {
    CHECK_THAT(error.fix(), ContainsSubstring("--quantize none"));
  }
  spec.model.dtype = DType::kF16;
  CHECK(refused(flux_dev()) == "--quantize --dtype bf16");
  spec.model.dtype = DType::kBF16;
  CHECK(refused(models::open("sdxl", {}, {}, true)) == "--quantize --quantize none");
  spec.parallel.gpus = "2";
  spec.parallel.shard_weights = "true";
  CHECK(refused(flux_dev()) == "--shard-weights --no-shard-weights, or --quantize none");
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

TEST_CASE("where weights are sharded, encoders are gone before the denoiser comes") {
  config::RunSpec spec = spec_on("2");
  spec.parallel.gather = 2;
  spec.parallel.shard_weights = "true";
  const Plan plan = make_plan(spec, flux_dev(), machine_of(2, 80 * kGb));
  for (const RankPlan& rank : plan.ranks) {
    CHECK_FALSE(rank.overlap_loading);
    CHECK(rank.peak_memory < 16 * kGb);
  }
  CHECK_THAT(to_text(plan, flux_dev(), machine_of(2, 80 * kGb), spec),
             ContainsSubstring("each block and modulation.weight spread over 2 ranks"));
}

TEST_CASE("ranks that shard FLUX hold an equal part of its blocks and modulations, and two blocks") {
  const auto held = [](std::int64_t ranks, const char* shard) {
    config::RunSpec spec = spec_on(std::to_string(ranks));
    spec.parallel.gather = ranks;
    spec.parallel.shard_weights = shard;
    const Plan plan = make_plan(spec, flux_dev(), machine_of(8, 80 * kGb));
    CHECK(plan.shard == (ranks == 1 ? 1 : ranks));
    std::vector<std::uint64_t> bytes;
    for (const RankPlan& rank : plan.ranks) bytes.push_back(rank.networks.at("transformer").memory);
    return bytes;
  };
  // 912 width^2 are of blocks, the largest of 24; 344 of modulations.
  constexpr std::uint64_t kWidth2 = std::uint64_t{3072} * 3072 * 2;
  const std::uint64_t rest = held(1, "false").front() - (912 + 344) * kWidth2;
  for (const std::uint64_t ranks : {2, 3, 5})
    for (const std::uint64_t bytes : held(static_cast<std::int64_t>(ranks), "true")) {
      CAPTURE(ranks);
      const std::uint64_t least = (912 + 344) * kWidth2 / ranks + 2 * 24 * kWidth2;
      CHECK(bytes >= least);
      CHECK(bytes <= least + rest);
    }
}

TEST_CASE("steps are replayed where launches are short and the whole step can be captured") {
  const auto replays = [](config::RunSpec spec, const models::Model& model = flux_dev()) {
    return make_plan(spec, model, machine_of(8, 80 * kGb)).replays;
  };
  CHECK(replays(spec_on("1")));
  config::RunSpec large = spec_on("1");
  large.image.width = large.image.height = 2048;
  CHECK_FALSE(replays(large));  // long launches
  config::RunSpec small = spec_on("1");
  small.image.width = small.image.height = 512;
  CHECK(replays(small));
  CHECK(replays(spec_on("8")));
  const models::Model unet = models::open("stable-diffusion-xl-base-1.0", {}, {}, true);
  CHECK(replays(spec_on("1"), unet));
  const auto without = [&](const auto& change) {
    config::RunSpec spec = small;
    spec.parallel.gpus = "2";
    CHECK(replays(spec));
    change(spec);
    return replays(spec);
  };
  CHECK_FALSE(without([](config::RunSpec& spec) { spec.runtime.cuda_graphs = false; }));
  CHECK_FALSE(without([](config::RunSpec& spec) { spec.runtime.transport = config::Transport::kHost; }));
  CHECK_FALSE(without([](config::RunSpec& spec) { spec.parallel.shard_weights = "true"; }));
  CHECK_FALSE(without([](config::RunSpec& spec) {
    spec.parallel.pipefusion = 2;
    spec.parallel.allow = config::Allow::kApproximate;
  }));
}

TEST_CASE("a UNet's branches are joined where one rank computes both of whole pictures") {
  const models::Model unet = models::open("stable-diffusion-xl-base-1.0", {}, {}, true);
  const auto joins = [&](const models::Model& model, const auto& change) {
    config::RunSpec spec = spec_on("2");
    spec.sampling.cfg_scale = 5;
    spec.sampling.seeds = {1, 2};
    change(spec);
    return make_plan(spec, model, machine_of(2, 80 * kGb)).joins_branches;
  };
  CHECK(joins(unet, [](config::RunSpec& spec) { spec.parallel.data = 2; }));
  CHECK_FALSE(joins(unet, [](config::RunSpec& spec) { spec.parallel.cfg = 2; }));
  CHECK_FALSE(joins(unet, [](config::RunSpec& spec) { spec.parallel.gather = 2; }));
  CHECK_FALSE(joins(unet, [](config::RunSpec& spec) {
    spec.parallel.data = 2;
    spec.sampling.cfg_scale = 1;
  }));
  CHECK_FALSE(joins(flux_dev(), [](config::RunSpec& spec) { spec.parallel.data = 2; }));
}

TEST_CASE("a run is warmed up where that costs less than the first step wins") {
  const auto warms = [](const auto& change) {
    config::RunSpec spec = spec_on("2");
    change(spec);
    return make_plan(spec, flux_dev(), machine_of(2, 80 * kGb)).warms_up;
  };
  CHECK(warms([](config::RunSpec&) {}));
  CHECK_FALSE(warms([](config::RunSpec& spec) { spec.runtime.warm_up = "false"; }));
  CHECK_FALSE(warms([](config::RunSpec& spec) { spec.image.width = spec.image.height = 3072; }));
  CHECK_FALSE(warms([](config::RunSpec& spec) { spec.parallel.shard_weights = "true"; }));
  CHECK_FALSE(warms([](config::RunSpec& spec) { spec.runtime.device = config::Device::kCpu; }));
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

TEST_CASE("the ranks of a picture share its rows, evenly and without holes; the first writes it") {
  config::RunSpec spec = spec_on("1");
  spec.runtime.device = config::Device::kCpu;
  spec.sampling.cfg_scale = 2;
  spec.parallel.cfg = 2;
  spec.image.height = 1040;  // 130 rows of latents
  Machine machine = machine_of(0, 0);
  machine.host_memory = 640 * kGb;
  for (const std::int64_t data : {1, 2})
    for (std::int64_t gather = 1; gather <= 5; ++gather)
      for (const std::int64_t degree : {0, 1, 3}) {  // 0: not said
        const std::int64_t ranks = 2 * gather;       // of a picture
        if (degree > ranks) continue;
        CAPTURE(data, ranks, degree);
        spec.parallel.gpus = std::to_string(data * ranks);
        spec.image.count = data;
        spec.parallel.data = data;
        spec.parallel.gather = gather;
        spec.parallel.vae = degree == 0 ? std::nullopt : std::optional(degree);
        const Plan plan = make_plan(spec, flux_dev(), machine);
        for (std::int64_t picture = 0; picture < data; ++picture) {
          std::int64_t next = 0;
          for (std::int64_t i = 0; i < ranks; ++i) {
            const RankPlan& rank = plan.ranks.at(static_cast<std::size_t>(picture * ranks + i));
            const std::int64_t sharing = degree == 0 ? ranks : degree;
            CHECK(rank.decodes == (i == 0));
            CHECK((rank.latent_rows.count > 0) == (i < sharing));
            if (rank.latent_rows.count == 0) continue;
            CHECK(rank.latent_rows.first == next);
            CHECK(std::abs(rank.latent_rows.count * sharing - 130) < sharing);
            next += rank.latent_rows.count;
          }
          CHECK(next == 130);
        }
      }
}

TEST_CASE("slabs lower the memory that decoding needs") {
  config::RunSpec spec = spec_on("4");
  spec.runtime.device = config::Device::kCpu;
  spec.image = {.width = 4096, .height = 4096, .count = 1};
  Machine machine = machine_of(0, 0);
  machine.host_memory = 640 * kGb;
  const std::uint64_t slabs = make_plan(spec, flux_dev(), machine).ranks[0].peak_memory;
  spec.parallel.vae = 1;
  const Plan plan = make_plan(spec, flux_dev(), machine);
  CHECK(plan.ranks[0].peak_memory > slabs + 10 * kGb);
  CHECK(plan.ranks[1].peak_memory < plan.ranks[0].peak_memory);
  CHECK_THAT(to_text(plan, flux_dev(), machine, spec), ContainsSubstring("latent rows 0-511"));
  CHECK_THAT(to_text(plan, flux_dev(), machine, spec), ContainsSubstring("latent rows none"));
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
  spec.parallel.ulysses = {};
  spec.parallel.vae = 2;
  CHECK_THAT(message(spec, machine_of(1, 80 * kGb), ExitCode::kUsage),
             ContainsSubstring("1 rank makes a picture"));
}

}  // namespace
}  // namespace xdit::parallel
