#include "comm/host_memory.h"

#include <sys/mman.h>

#include <array>

#include "tests/catch.h"
#include "tests/comm/ranks.h"

using namespace xdit::comm;
using namespace xdit::tests;

TEST_CASE("epochs pass 2^32, where the futex's half of them starts again") {
  struct Words {
    std::array<std::uint64_t, 4> word;
  };
  const SharedMemory memory = SharedMemory::create(sizeof(Words));
  auto& words = *reinterpret_cast<Words*>(memory.data());
  constexpr std::uint64_t kStart = (std::uint64_t{1} << 32U) - 10;
  words.word.fill(kStart);
  const std::shared_ptr<Job> job = Job::create(2);
  CHECK(run_processes(2, [&](int rank) {
          HostMemory host(job, rank, std::chrono::seconds(5));
          std::array<std::uint64_t, 2> counts{kStart, kStart};
          const Flag out{&words.word[rank], counts.data(), 1 - rank};
          const Flag in{&words.word[1 - rank], &counts[1], 1 - rank};
          for (int i = 0; i < 20; ++i) {
            if (rank == 0) host.raise({&out, 1}, nullptr);
            host.await({&in, 1}, "ping", nullptr);
            if (rank == 1) host.raise({&out, 1}, nullptr);
          }
        }) == kNone);
  CHECK(words.word[0] == kStart + 20);
}

TEST_CASE("copies are strided on both sides, and sums start from the first term") {
  HostMemory host(Job::create(1), 0, std::chrono::seconds(1));
  const std::array<std::byte, 6> from{std::byte{1}, std::byte{2}, std::byte{3},
                                      std::byte{4}, std::byte{5}, std::byte{6}};
  std::array<std::byte, 7> to{};
  const Copy copy{from.data(), to.data() + 1, 2, 2, 3, 4};
  host.copy({&copy, 1}, nullptr);
  CHECK(to == std::array<std::byte, 7>{std::byte{0}, std::byte{1}, std::byte{2}, std::byte{0}, std::byte{0},
                                       std::byte{4}, std::byte{5}});

  const std::array<float, 3> values{1e8F, -1e8F, 1};  // another order gives 0
  const std::array<const float*, 3> terms{values.data(), &values[1], &values[2]};
  float sum = 0;
  host.sum(&sum, terms, 1, nullptr);
  CHECK(sum == 1);
}
