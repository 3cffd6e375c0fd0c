#include <fmt/format.h>

#include <chrono>
#include <cstdlib>

#include "comm/group.h"
#include "tests/catch.h"
#include "tests/comm/ranks.h"

using namespace xdit::comm;
using namespace xdit::tests;

// XDIT_BENCH=1 build/test_comm "[bench]" prints GB/s that a rank receives at FLUX's 28.3 MB of activations.
TEST_CASE("bandwidth of all_gather, and the time of a barrier", "[bench]") {
  const bool bench = std::getenv("XDIT_BENCH") != nullptr;
  for (const int size : {2, 4, 8}) {
    const auto body = [&](Rank& self) {
      const std::int64_t bytes = bench ? 28'300'000 : 1'000;
      const int turns = bench ? 20 : 1;
      const std::int64_t each = bytes / self.group.size();
      std::vector<Range> parts;
      for (const int peer : self.group.everyone()) parts.push_back({peer * each, each});
      PeerBuffer buffer = self.group.allocate(bytes);
      const std::vector<std::byte> mine(static_cast<std::size_t>(each), std::byte{1});
      const auto seconds = [&](const auto& operation) {
        operation();
        self.group.barrier();
        const auto start = std::chrono::steady_clock::now();
        for (int turn = 0; turn < turns; ++turn) operation();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / turns;
      };
      const double gather = seconds([&] { self.group.all_gather_v(mine.data(), parts, buffer); });
      const double barrier = seconds([&] { self.group.barrier(); });
      expect(buffer.data()[each * self.group.size() - 1] == std::byte{1}, "the last byte");
      if (bench && self.group.rank() == 0) {
        fmt::print("all_gather {} ranks: {:.2f} ms, {:.1f} GB/s a rank; barrier {:.0f} us\n", size,
                   gather * 1e3, static_cast<double>(bytes - each) / gather * 1e-9, barrier * 1e6);
        static_cast<void>(std::fflush(stdout));
      }
    };
    CHECK(run_ranks(size, body) == kNone);
  }
}
