// Whole pictures over ranks.
#include <numeric>

#include "core/error.h"
#include "parallel/plan.h"
#include "tests/catch.h"

namespace xdit::parallel {
namespace {

const models::Model& flux_dev() {
  static const models::Model model = models::open("FLUX.1-dev", {}, {}, true);
  return model;
}

constexpr std::uint64_t kGb = 1'000'000'000;

Machine machine_of(std::size_t gpus) {
  return {.gpus = std::vector<Gpu>(gpus, {.name = "H100", .uuid = "GPU-0", .memory = 80 * kGb}),
          .host_memory = 640 * kGb,
          .cores = 8};
}

config::RunSpec spec_of(std::int64_t pictures, const std::string& gpus) {
  config::RunSpec spec;
  spec.prompts = {"x"};
  spec.sampling.seeds = {0};
  spec.image.count = pictures;
  spec.parallel.gpus = gpus;
  spec.runtime.device = config::Device::kCpu;
  return spec;
}

std::string refusal(const config::RunSpec& spec, const Machine& machine, ExitCode code) {
  try {
    static_cast<void>(make_plan(spec, flux_dev(), machine));
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "no error";
}

TEST_CASE(
    "every picture belongs to one rank, ranks take theirs in a row, and none has two more than another") {
  for (std::int64_t ranks = 1; ranks <= 8; ++ranks)
    for (std::int64_t pictures = 1; pictures <= 20; ++pictures) {
      CAPTURE(ranks, pictures);
      config::RunSpec spec = spec_of(pictures, std::to_string(ranks));
      spec.parallel.data = ranks;
      const Plan plan = make_plan(spec, flux_dev(), machine_of(0));
      REQUIRE(plan.ranks.size() == static_cast<std::size_t>(ranks));
      CHECK(plan.mesh.data == ranks);
      CHECK(plan.mesh.size() == ranks);
      std::int64_t next = 0;
      for (const RankPlan& rank : plan.ranks) {
        CHECK(rank.rank == &rank - plan.ranks.data());
        CHECK(rank.pictures.first == next);
        CHECK(rank.pictures.count >= pictures / ranks);
        CHECK(rank.pictures.count <= (pictures + ranks - 1) / ranks);
        next += rank.pictures.count;
      }
      CHECK(next == pictures);
      CHECK(plan.notes.empty() == (pictures >= ranks));
    }
}

TEST_CASE("idle ranks hold nothing, and the plan says so") {
  config::RunSpec spec = spec_of(2, "4");
  spec.parallel.data = 4;
  const Plan plan = make_plan(spec, flux_dev(), machine_of(0));
  CHECK(plan.ranks[1].networks.at("transformer").memory > 0);
  CHECK(plan.ranks[2].networks.empty());
  CHECK(plan.ranks[3].peak_memory == 0);
  CHECK(plan.notes == std::vector<std::string>{"2 pictures for 4 ranks: ranks 2 to 3 have nothing to do"});
  CHECK_THAT(to_text(plan, flux_dev(), machine_of(0), spec), ContainsSubstring("rank 3 on cpu:\n  idle"));
  spec = spec_of(1, "2");
  spec.parallel.data = 2;
  CHECK(make_plan(spec, flux_dev(), machine_of(0)).notes ==
        std::vector<std::string>{"1 picture for 2 ranks: rank 1 has nothing to do"});
}

TEST_CASE("--gpus gives ranks: all, a count, a list, a device twice") {
  const auto devices = [](const std::string& gpus) {
    config::RunSpec spec = spec_of(8, gpus);
    spec.runtime.device = config::Device::kCuda;
    std::vector<std::int64_t> all;
    for (const RankPlan& rank : make_plan(spec, flux_dev(), machine_of(4)).ranks) all.push_back(rank.device);
    return all;
  };
  using Devices = std::vector<std::int64_t>;
  CHECK(devices("all") == Devices{0, 1, 2, 3});
  CHECK(devices("2") == Devices{0, 1});
  CHECK(devices("3,1") == Devices{3, 1});
  CHECK(devices("0,0") == Devices{0, 0});
}

TEST_CASE("GPUs that do not reach each other make the same plan, through the host's memory") {
  using config::Transport;
  config::RunSpec spec = spec_of(1, "2");
  spec.runtime.cuda_graphs = false;  // only peers' steps are captured, which takes memory
  const auto plan_on = [&](config::Device device, bool reach) {
    spec.runtime.device = device;
    Machine machine = machine_of(2);
    machine.peer_access = reach;
    const Plan plan = make_plan(spec, flux_dev(), machine);
    return std::pair{plan.transport, to_text(plan, flux_dev(), machine, spec)};
  };
  const auto direct = plan_on(config::Device::kCuda, true);
  const auto relayed = plan_on(config::Device::kCuda, false);
  CHECK(direct.first == Transport::kPeer);
  CHECK(relayed.first == Transport::kHost);
  CHECK_THAT(direct.second, ContainsSubstring("\ntransport: peer memory\n"));
  std::string same = relayed.second;
  const std::string line = "transport: pinned host memory";
  REQUIRE(same.find(line) != std::string::npos);
  CHECK(same.replace(same.find(line), line.size(), "transport: peer memory") == direct.second);
  CHECK(plan_on(config::Device::kCpu, false).first == Transport::kPeer);

  spec.runtime.transport = Transport::kHost;
  CHECK(plan_on(config::Device::kCuda, true).first == Transport::kHost);
  CHECK(plan_on(config::Device::kCpu, true).first == Transport::kHost);
  spec.runtime.transport = Transport::kPeer;
  CHECK(plan_on(config::Device::kCuda, false).first == Transport::kPeer);
  spec.runtime.transport = Transport::kAuto;
  spec.parallel.gpus = "0,0";  // one GPU reaches itself
  CHECK(plan_on(config::Device::kCuda, false).first == Transport::kPeer);
  spec.parallel.gpus = "1";
  CHECK_THAT(plan_on(config::Device::kCuda, false).second, !ContainsSubstring("transport"));
}

TEST_CASE("ranks on one device share its memory") {
  config::RunSpec spec = spec_of(3, "0,0");
  spec.runtime.device = config::Device::kCuda;
  const Plan two = make_plan(spec, flux_dev(), machine_of(1));
  CHECK(two.ranks[0].peak_memory <= 40 * kGb);
  spec.parallel.gpus = "0,0,0";
  spec.parallel.shard_weights = "false";
  const std::string refused = refusal(spec, machine_of(1), ExitCode::kMemory);
  CHECK_THAT(refused, ContainsSubstring("26.7 GB for each of 3 ranks"));
  CHECK_THAT(refused, ContainsSubstring("--shard-weights"));
  spec.image.count = 1;
  spec.parallel.data = 3;  // two are idle
  CHECK(make_plan(spec, flux_dev(), machine_of(1)).ranks.size() == 3);
}

TEST_CASE("degrees that do not make the number of ranks are refused") {
  config::RunSpec spec = spec_of(4, "4");
  spec.parallel.data = 4;
  CHECK(make_plan(spec, flux_dev(), machine_of(0)).mesh.data == 4);
  spec.parallel.data = 2;
  spec.parallel.ulysses = spec.parallel.gather = 1;
  CHECK_THAT(refusal(spec, machine_of(0), ExitCode::kUsage), ContainsSubstring("multiply to 2"));
  spec.parallel.data = {};
  spec.parallel.ulysses = 3;
  CHECK_THAT(refusal(spec, machine_of(0), ExitCode::kUsage), ContainsSubstring("multiply to 3"));
}

TEST_CASE("a trace is of one rank") {
  config::RunSpec spec = spec_of(2, "2");
  spec.output.trace = "t.safetensors";
  CHECK_THAT(refusal(spec, machine_of(0), ExitCode::kUsage), ContainsSubstring("--trace"));
  spec.image.count = 1;
  CHECK(make_plan(spec, flux_dev(), machine_of(0)).ranks.size() == 2);
}

}  // namespace
}  // namespace xdit::parallel
