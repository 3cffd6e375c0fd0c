#include "launch/health.h"

#include <sys/wait.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/launch.h"
#include "launch/probe.h"
#include "tests/catch.h"
#include "tests/scratch.h"

namespace xdit::launch {
namespace {

using parallel::Link;

// A machine of `gpus` H100 on which nothing is wrong.
Health sound(std::size_t gpus) {
  Health health;
  health.driver = "580.65.06";
  health.cuda = 13000;
  health.machine.host_memory = 256'000'000'000;
  health.machine.cores = 32;
  for (std::size_t i = 0; i < gpus; ++i) {
    health.machine.gpus.push_back({"NVIDIA H100 80GB HBM3", "GPU-" + std::to_string(i), 85'520'809'984});
    health.machine.links.emplace_back(gpus, Link::kNvlink);
    GpuState& state = health.gpus.emplace_back();
    state.memory_free = 85'000'000'000;
    state.sm_mhz_max = 1980;
    state.power_limit_w = state.power_default_w = 700;
    state.nvlinks = 18;
    health.tried.push_back({.sm_mhz = 1500, .power_w = 690, .temperature_c = 60, .throttle = 0x4});
    health.probe.host.push_back(5e10);
    health.probe.pairs.emplace_back(gpus, 3e11);
    health.probe.pairs.back()[i] = 0;
    health.probe.faults.emplace_back();
  }
  health.probe.cuda = 13000;
  health.probe.nccl = 22809;
  health.disk = 3e9;
  health.disk_path = "models";
  health.shm = 1'000'000'000;
  health.open_files = 4096;
  return health;
}

// The only problem after a change.
template <class F>
Problem problem_after(F&& change, std::size_t gpus = 4) {
  Health health = sound(gpus);
  change(health);
  const std::vector<Problem> problems = problems_of(health, true);
  REQUIRE(problems.size() == 1);
  CHECK_FALSE(problems[0].mend.empty());
  CHECK(problems[0].what.find('\n') == std::string::npos);
  return problems[0];
}

}  // namespace

TEST_CASE("a sound machine has no problems, with one GPU or eight") {
  for (const std::size_t gpus : {1U, 2U, 8U}) CHECK(problems_of(sound(gpus), true).empty());
}

TEST_CASE("each problem is found alone, with its mend") {
  struct Case {
    std::function<void(Health&)> change;
    const char* what;
    const char* mend;
    bool fatal = false;
  };
  const auto pci_between = [](Health& health, std::size_t i, std::size_t j, Link link) {
    health.machine.links[i][j] = health.machine.links[j][i] = link;
  };
  const std::vector<Case> cases{
      {[](Health& h) { h.driver_fault = "Driver/library version mismatch"; }, "version mismatch", "reboot",
       true},
      {[](Health& h) { h.cuda = 12040; }, "serves CUDA 12.4", "580", true},
      {[](Health& h) { h.probe_fault = "cannot load", h.probe_fix = "scripts/build"; }, "cannot load",
       "scripts/build", true},
      {[](Health& h) { h.probe.faults[2] = "CUDA error: out of memory"; }, "GPU 2 cannot be used", "--gpus"},
      {[](Health& h) { h.probe.cuda = 0, h.probe.host.clear(); }, "no CUDA", "build", true},
      {[](Health& h) {
         h.gpus[1].processes = {{77, 1}, {78, 1}}, h.gpus[1].memory_free = 40'000'000'000;
       },
       "hold 45.5 GB of 85.5 GB", "end process 77, 78"},
      {[](Health& h) { h.gpus[1].memory_free = 40'000'000'000; }, "hold 45.5 GB", "container"},
      {[](Health& h) { h.tried[3].throttle |= 0x40; }, "GPU 3: heat", "cooling"},
      {[](Health& h) { h.tried[3].throttle |= 0x80; }, "brake", "power supplies"},
      {[](Health& h) { h.gpus[0].power_limit_w = 400; }, "400 W of 700 W", "nvidia-smi -i GPU-0 -pl 700"},
      {[](Health& h) { h.gpus[0].nvlinks = 12; }, "12 NVLinks are up, on another 18", "nvlink"},
      {[](Health& h) { h.probe.host[1] = 3e9; }, "3.0 GB/s from the host", "16 lanes"},
      {[&](Health& h) {
         for (std::size_t i = 0; i < 4; ++i)
           for (std::size_t j = 0; j < i; ++j)
             pci_between(h, i, j, i == 3 && j == 1 ? Link::kNone : Link::kNear);
       },
       "no peer access between GPUs 1-3", "ACS"},
      {[&](Health& h) {
         for (const std::size_t i : {0U, 1U})
           for (const std::size_t j : {2U, 3U}) pci_between(h, i, j, Link::kFar);
       },
       "NVLink joins some", "--data between islands"},
      {[](Health& h) { h.probe.pairs[2][0] = 2e10; }, "GPU 2 to 0: 20 GB/s", "nvlink"},
      {[](Health& h) { h.machine.gpus[1].name = "NVIDIA L4"; }, "unlike GPUs", "one kind"},
      {[](Health& h) { h.shm = 64'000'000; }, "/dev/shm has 64 MB", "--shm-size"},
      {[](Health& h) { h.open_files = 256; }, "256 open files", "ulimit -n 1024"},
      {[](Health& h) { h.disk = 2e8; }, "models is read at 0.20 GB/s: FLUX.1 takes 168 s", "SSD"},
  };
  for (const Case& one : cases) {
    CAPTURE(one.what);
    const Problem problem = problem_after(one.change);
    CHECK_THAT(problem.what, ContainsSubstring(one.what));
    CHECK_THAT(problem.mend, ContainsSubstring(one.mend));
    CHECK(problem.fatal == one.fatal);
  }
}

TEST_CASE("without a driver or a visible GPU there is none to try, and ranks on the CPU need none") {
  Health none = sound(0);
  none.probe = {};
  CHECK(problems_of(none, false).empty());
  REQUIRE(problems_of(none, true).size() == 1);
  CHECK_THAT(problems_of(none, true)[0].what, ContainsSubstring("no GPU is visible"));
  none.hidden = 2;
  CHECK_THAT(problems_of(none, true)[0].mend, ContainsSubstring("CUDA_VISIBLE_DEVICES"));
  none.driver.clear();
  REQUIRE(problems_of(none, true).size() == 1);
  CHECK(problems_of(none, true)[0].what == "no NVIDIA driver");
  CHECK(problems_of(none, true)[0].fatal);
}

TEST_CASE("what doctor writes is a machine that a plan reads") {
  Health health = sound(2);
  health.machine.measured.peer = 2.5e11;
  const tests::Scratch scratch;
  const std::filesystem::path file = scratch.path() / "machine.json";
  std::ofstream(file) << to_json(health, problems_of(health, true));
  const parallel::Machine machine = parallel::read_machine(file.string());
  CHECK(nlohmann::json(machine) == nlohmann::json(health.machine));
  CHECK(parallel::rates_of(machine)->peer == 2.5e11);
  CHECK_THAT(to_text(health, {}), ContainsSubstring("to GPU 1: NVLink, 300 GB/s") &&
                                      ContainsSubstring("NCCL 2.28.9") && ContainsSubstring("CUDA 13.0") &&
                                      ContainsSubstring("no problems"));
}

TEST_CASE("a process of its own tries the GPUs, and is ended when it takes too long or nobody waits for it") {
  const StopToken nobody;
  const std::size_t gpus = this_machine().gpus.size();
  int looked = 0;
  const pipeline::Probe probe = try_gpus(gpus, 120, nobody, [&] { ++looked; });
  CHECK(looked > 0);
  for (const std::string& fault : probe.faults) CHECK(fault.empty());
  for (std::size_t i = 0; i < probe.pairs.size(); ++i)
    for (std::size_t j = 0; j < gpus; ++j) CHECK((probe.pairs[i][j] > 1e9) == (i != j));
  CHECK((probe.product > 1e12) == (gpus > 0));
  CHECK_THROWS_WITH(try_gpus(gpus, 0, nobody, [] {}), ContainsSubstring("did not answer in time"));
  StopToken stop;
  stop.request(2);
  CHECK_THROWS_AS(try_gpus(gpus, 120, stop, [] {}), Error);
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);  // no child is left
}

TEST_CASE("the disk's rate is the one that files of the machine are read at, with GPUs or without") {
  const tests::Scratch scratch;
  const StopToken nobody;
  for (const bool wants_gpus : {true, false}) {
    const Health health = examine(scratch.path(), wants_gpus, nobody);
    CHECK(health.disk > 1e6);
    CHECK(health.machine.measured.read == health.disk);
  }
}

TEST_CASE("a disk's rate, of a folder or a file, leaves nothing behind") {
  const tests::Scratch scratch;
  CHECK(disk_rate(scratch.path()) > 1e6);
  CHECK(std::filesystem::is_empty(scratch.path()));
  const std::filesystem::path file = scratch.path() / "weights";
  std::ofstream(file) << std::string(1 << 20, 'x');
  CHECK(disk_rate(file) > 1e5);
  CHECK(std::filesystem::file_size(file) == 1 << 20);
  CHECK(disk_rate(scratch.path() / "nothing") == 0);
}

}  // namespace xdit::launch
