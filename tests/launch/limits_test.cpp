#include "launch/limits.h"

#include <fstream>
#include <string>

#include "tests/catch.h"
#include "tests/scratch.h"

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

parallel::Machine limited(const fs::path& root) {
  parallel::Machine machine;
  machine.host_memory = 64'000'000'000;
  machine.cores = 32;
  apply_limits(machine, root);
  return machine;
}

}  // namespace

TEST_CASE("a container's memory and cores are the machine's; none, or none that limit, change nothing") {
  const tests::Scratch folder;
  const fs::path groups = folder.path() / "sys/fs/cgroup";
  CHECK(limited(folder.path()).host_memory == 64'000'000'000);
  write(folder.path() / "proc/self/cgroup", "0::/\n");
  write(groups / "memory.max", "max\n");
  write(groups / "cpu.max", "max 100000\n");
  CHECK(limited(folder.path()).host_memory == 64'000'000'000);
  CHECK(limited(folder.path()).cores == 32);

  write(groups / "memory.max", "8000000000\n");
  write(groups / "cpu.max", "250000 100000\n");
  CHECK(limited(folder.path()).host_memory == 8'000'000'000);
  CHECK(limited(folder.path()).cores == 3);  // two and a half
  write(groups / "cpu.max", "1000 100000\n");
  CHECK(limited(folder.path()).cores == 1);
  write(groups / "memory.max", "99000000000\n");
  write(groups / "cpu.max", "6400000 100000\n");
  CHECK(limited(folder.path()).host_memory == 64'000'000'000);
  CHECK(limited(folder.path()).cores == 32);
}

TEST_CASE("the least of a group and of those around it counts, and the first version's memory") {
  const tests::Scratch folder;
  const fs::path groups = folder.path() / "sys/fs/cgroup";
  write(folder.path() / "proc/self/cgroup", "4:memory:/docker/a\n1:cpu,cpuacct:/\n0::/user.slice/run:1\n");
  write(groups / "user.slice/run:1/memory.max", "9000000000\n");
  write(groups / "user.slice/memory.max", "5000000000\n");
  write(groups / "user.slice/run:1/cpu.max", "400000 100000\n");
  write(groups / "user.slice/cpu.max", "max 100000\n");
  write(groups / "other.slice/memory.max", "1\n");
  CHECK(limited(folder.path()).host_memory == 5'000'000'000);
  CHECK(limited(folder.path()).cores == 4);

  // A container sees its own group as the root of the first version's.
  write(groups / "memory/memory.limit_in_bytes", "3000000000\n");
  CHECK(limited(folder.path()).host_memory == 3'000'000'000);
  write(groups / "memory/docker/a/memory.limit_in_bytes", "2000000000\n");
  CHECK(limited(folder.path()).host_memory == 2'000'000'000);
}

}  // namespace xdit::launch
