#include "parallel/plan_machine.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "parallel/plan.h"
#include "tests/catch.h"
#include "tests/scratch.h"

namespace xdit::parallel {
namespace {

using Devices = std::vector<std::int64_t>;

// GPUs of a machine whose pairs are linked as `link` says.
template <class F>
Machine machine_of(std::int64_t gpus, F&& link) {
  Machine machine;
  for (std::int64_t i = 0; i < gpus; ++i) {
    machine.gpus.push_back(
        {"NVIDIA H100 80GB HBM3", "GPU-" + std::string(1, static_cast<char>('a' + i)), 80});
    std::vector<Link>& row = machine.links.emplace_back();
    for (std::int64_t j = 0; j < gpus; ++j) row.push_back(i == j ? Link::kNvlink : link(i, j));
  }
  return machine;
}

}  // namespace

TEST_CASE("neighbours among the ranks share the fastest links") {
  const auto order = [](std::int64_t gpus, auto&& link) { return by_topology(machine_of(gpus, link)); };
  const auto same = [](Link link) { return [=](std::int64_t, std::int64_t) { return link; }; };
  for (const Link link : {Link::kNone, Link::kFar, Link::kNear, Link::kNvlink})
    CHECK(order(4, same(link)) == Devices{0, 1, 2, 3});
  // Bridges between 0 and 2, 1 and 3.
  const auto bridged = [](std::int64_t i, std::int64_t j) {
    return i % 2 == j % 2 ? Link::kNvlink : Link::kNear;
  };
  CHECK(order(4, bridged) == Devices{0, 2, 1, 3});
  // Two sockets, in each a pair of neighbours with a bridge.
  const auto sockets = [](std::int64_t i, std::int64_t j) {
    if (i % 2 != j % 2) return Link::kFar;
    return i / 4 == j / 4 ? Link::kNvlink : Link::kNear;
  };
  CHECK(order(8, sockets) == Devices{0, 2, 4, 6, 1, 3, 5, 7});
  // The larger island comes first: two ranks are placed on it.
  const auto lone = [](std::int64_t i, std::int64_t j) {
    return i > 0 && j > 0 ? Link::kNvlink : Link::kFar;
  };
  CHECK(order(3, lone) == Devices{1, 2, 0});
  CHECK(by_topology(read_machine("h100x4")) == Devices{0, 1, 2, 3});
}

TEST_CASE("a machine is read from its name or from what doctor wrote") {
  CHECK(read_machine("h100x8").gpus.size() == 8);
  CHECK(nlohmann::json(read_machine("h200")) == nlohmann::json(read_machine("h200x1")));
  CHECK(read_machine("h200x1").gpus[0].memory > read_machine("a100x1").gpus[0].memory);
  for (const std::string& name : known_gpus()) CHECK(rates_of(read_machine(name + "x2"))->product > 0);
  for (const char* text : {"h100x", "h100 ", "h100x0", "h100x65", "h100x2x", "b9x2", "", "h100x-1"})
    CHECK_THROWS_WITH(read_machine(text), ContainsSubstring("--machine h100x8"));

  Machine machine = machine_of(2, [](auto, auto) { return Link::kNear; });
  machine.peer_access = false;
  machine.host_memory = 7;
  machine.cores = 3;
  machine.measured.peer = 1e10;
  const tests::Scratch scratch;
  const auto write = [&](const nlohmann::json& json) {
    std::ofstream(scratch.path() / "machine.json") << json;
    return (scratch.path() / "machine.json").string();
  };
  const nlohmann::json written = {{"machine", machine}, {"driver", "580"}};
  const Machine read = read_machine(write(written));
  CHECK(nlohmann::json(read) == nlohmann::json(machine));
  CHECK(read.gpus[1].uuid == "GPU-b");
  CHECK(read.links[0][1] == Link::kNear);
  CHECK(rates_of(read)->peer == 1e10);  // as measured, not as known

  const auto broken = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json json = written;
    json[nlohmann::json::json_pointer(pointer)] = value;
    try {
      static_cast<void>(read_machine(write(json)));
      return ExitCode::kOk;
    } catch (const Error& error) {
      return error.code();
    }
  };
  CHECK(broken("/machine/gpus/0/memory", 0) == ExitCode::kProfile);
  CHECK(broken("/machine/links", {{"nvlink"}}) == ExitCode::kProfile);
  CHECK(broken("/machine/cores", "x") == ExitCode::kProfile);
  CHECK(broken("/machine", 1) == ExitCode::kProfile);
}

TEST_CASE("--gpus takes UUIDs or their beginnings, and a list as it stands") {
  const models::Model model = models::open("FLUX.1-dev", {}, {}, true);
  Machine machine = machine_of(
      4, [](std::int64_t i, std::int64_t j) { return i % 2 == j % 2 ? Link::kNvlink : Link::kNear; });
  for (Gpu& gpu : machine.gpus) gpu.memory = 80'000'000'000;
  const auto devices = [&](const std::string& gpus) {
    config::RunSpec spec;
    spec.prompts = {"x"};
    spec.sampling.seeds = {0};
    spec.parallel.gpus = gpus;
    Devices all;
    for (const RankPlan& rank : make_plan(spec, model, machine).ranks) all.push_back(rank.device);
    return all;
  };
  CHECK(devices("GPU-c") == Devices{2});
  CHECK(devices("GPU-d,0") == Devices{3, 0});
  CHECK(devices("0,1") == Devices{0, 1});
  CHECK(devices("2") == Devices{0, 2});
  CHECK(devices("all") == Devices{0, 2, 1, 3});
  CHECK_THROWS_WITH(devices("GPU-e"), ContainsSubstring("no GPU-e"));
  CHECK_THROWS_WITH(devices("5"), ContainsSubstring("no GPU 4"));
}

}  // namespace xdit::parallel
