// What only GPUs have: graphs, faults on a stream, odd addresses. XDIT_TEST_CUDA runs it (see
// tests/comm/memory.h).
#include "comm/device_memory.h"

#include <fmt/format.h>
#include <signal.h>  // NOLINT: raise is POSIX's
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "comm/host_memory.h"
#include "core/error.h"
#include "tests/catch.h"
#include "tests/comm/device/cuda.h"
#include "tests/comm/memory.h"
#include "tests/comm/ranks.h"

using namespace xdit::comm;
using namespace xdit::tests;
using namespace std::chrono_literals;

namespace {

std::vector<std::byte> marks(std::int64_t first, std::int64_t count, std::int64_t salt) {
  std::vector<std::byte> bytes;
  for (std::int64_t i = 0; i < count; ++i) bytes.push_back(mark(first + i, salt));
  return bytes;
}

// One process that has device memory.
Failures run_alone(const std::function<void(PeerMemory& device, PeerMemory& host)>& body) {
  return run_processes(1, [&](int rank) {
    const std::shared_ptr<Job> job = Job::create(1);
    HostMemory host(job, rank, 10s);
    body(*tested_memory(job, rank, 10s), host);
  });
}

// A gather of one byte a rank, captured.
class Gather {
 public:
  explicit Gather(Group& group)
      : group_(group), buffer_(group.allocate(group.size())), graph_([&](Stream stream) {
          std::vector<Range> parts;
          for (const int peer : group.everyone()) parts.push_back({peer, 1});
          group.all_gather_v(buffer_.data() + group.rank(), parts, buffer_, stream);
        }) {}
  void launch() const { graph_.launch(); }
  void finish() const {
    graph_.synchronise();
    group_.check();
  }
  void replay() const {
    launch();
    finish();
  }

 private:
  Group& group_;
  PeerBuffer buffer_;
  Graph graph_;
};

}  // namespace

TEST_CASE("operations captured in a graph give other bytes at each of a hundred replays") {
  if (!on_gpu()) return;
  for (const int size : {1, 2, 3, 5}) {
    CAPTURE(size);
    const auto body = [&](Rank& self) {
      constexpr std::int64_t kTotal = 3001;
      constexpr std::int64_t kFloats = 257;
      constexpr std::int64_t kEach = 77;  // from each rank to each
      Group& group = self.group;
      const int rank = group.rank();
      std::mt19937 random(5);
      const std::vector<Range> parts = cut(kTotal, size, random);
      const std::vector<Range> whole(static_cast<std::size_t>(size), Range{0, kFloats});
      const std::vector<std::byte> nothing(kTotal);
      const auto mine = hold(nothing);
      const auto letters = hold(nothing);
      const auto terms = hold_values(std::vector<float>(kFloats));
      const auto total = hold_values(std::vector<float>(kFloats));
      PeerBuffer gathered = group.allocate(kTotal);
      PeerBuffer exchanged = group.allocate(kEach * size);
      PeerBuffer staging = group.allocate(kFloats * 4 * size);
      PeerBuffer news = group.allocate(kTotal);
      std::vector<Put> puts;
      for (const int peer : group.everyone())
        puts.push_back({.peer = peer,
                        .source = letters.get() + peer * kEach,
                        .rows = 1,
                        .row_bytes = kEach,
                        .offset = rank * kEach});
      const Graph graph([&](Stream stream) {
        group.all_gather_v(mine.get(), parts, gathered, stream);
        group.all_to_all_v(puts, exchanged, stream);
        group.sum(terms.get(), whole, staging, total.get(), stream);
        group.broadcast(mine.get(), parts[size - 1].count, size - 1, news, stream);
        group.barrier(stream);
      });
      for (int turn = 0; turn < 100; ++turn) {
        const auto value = [&](std::int64_t of, std::int64_t i) {
          return std::ldexp(static_cast<float>((of * 37 + i * 11 + turn) % 101 - 50),
                            static_cast<int>((of * 5 + i) % 24));
        };
        std::vector<float> floats;
        for (std::int64_t i = 0; i < kFloats; ++i) floats.push_back(value(rank, i));
        fill(mine.get(), marks(parts[rank].first, parts[rank].count, turn));
        fill(letters.get(), marks(rank * kEach * size, kEach * size, turn));
        fill(reinterpret_cast<std::byte*>(terms.get()), std::as_bytes(std::span(floats)));
        graph.launch();
        graph.synchronise();
        const std::string when = fmt::format(" of replay {}", turn);
        expect(look(group, gathered.data(), kTotal) == marks(0, kTotal, turn), "all_gather" + when);
        std::vector<std::byte> expected;
        for (std::int64_t peer = 0; peer < size; ++peer) {
          const auto letter = marks((peer * size + rank) * kEach, kEach, turn);
          expected.insert(expected.end(), letter.begin(), letter.end());
        }
        expect(look(group, exchanged.data(), kEach * size) == expected, "all_to_all" + when);
        const Range last = parts[size - 1];
        expect(look(group, news.data(), last.count) == marks(last.first, last.count, turn),
               "broadcast" + when);
        const std::vector<float> got = look_values(group, total.get(), kFloats);
        for (std::int64_t i = 0; i < kFloats; ++i) {
          float sum = value(0, i);
          for (int peer = 1; peer < size; ++peer) sum += value(peer, i);
          expect(std::bit_cast<std::uint32_t>(got[i]) == std::bit_cast<std::uint32_t>(sum), "sum" + when);
        }
      }
    };
    CHECK(run_ranks(size, body) == kNone);
  }
}

TEST_CASE("replays count how long they wait, each anew") {
  if (!on_gpu()) return;
  const auto body = [](Rank& self) {
    const Gather gather(self.group);
    gather.replay();
    for (int turn = 0; turn < 3; ++turn) {
      const double before_s = self.group.waited_s();
      [[maybe_unused]] const auto both_are_here = self.group.share({});
      const auto start = std::chrono::steady_clock::now();
      if (self.group.rank() == 1) ::usleep(50'000);
      gather.replay();
      const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
      const double waited_s = self.group.waited_s() - before_s;
      const bool right = (self.group.rank() == 1 || waited_s > 0.04) && waited_s <= passed.count();
      expect(right, fmt::format("{} s of {}", waited_s, passed.count()));
    }
  };
  CHECK(run_ranks(2, body) == kNone);
}

TEST_CASE("a replay that waits for a killed rank ends at the timeout") {
  if (!on_gpu()) return;
  const auto body = [](Rank& self) {
    const Gather gather(self.group);
    for (int turn = 0; turn < 3; ++turn) gather.replay();
    if (self.group.rank() == 1) ::raise(SIGKILL);
    const auto start = std::chrono::steady_clock::now();
    try {
      gather.replay();
    } catch (const xdit::Error&) {
      expect(std::chrono::steady_clock::now() - start < 5s, "soon after the timeout");
      throw;
    }
  };
  const Failures failures = run_ranks(2, body, {.timeout = 1s});
  REQUIRE(failures.size() == 2);
  CHECK_THAT(failures[0], ContainsSubstring("0: all_gather: rank 0 heard nothing from rank 1 for 1 s"));
  CHECK(failures[1] == "1: signal 9");
}

TEST_CASE("an abort frees a replay at once, whatever the timeout") {
  if (!on_gpu()) return;
  const auto body = [](Rank& self) {
    const Gather gather(self.group);
    gather.replay();
    if (self.group.rank() == 1) {
      ::usleep(500'000);
      self.job.abort(1);
      return;
    }
    gather.launch();
    while (!self.job.aborted()) ::usleep(1'000);
    const auto aborted = std::chrono::steady_clock::now();
    try {
      gather.finish();
    } catch (const xdit::Error&) {
      expect(std::chrono::steady_clock::now() - aborted < 200ms, "at once");
      throw;
    }
  };
  const Failures failures = run_ranks(2, body, {.timeout = 10min});
  REQUIRE(failures.size() == 1);
  CHECK_THAT(failures[0], ContainsSubstring("0: all_gather: rank 1 failed while rank 0 waited for rank 1"));
}

TEST_CASE("after a wait that failed nothing reaches the peers") {
  if (!on_gpu()) return;
  const auto body = [](Rank& self) {
    PeerBuffer buffer = self.group.allocate(64);
    if (self.group.rank() == 0) {  // rank 1 never says that its buffer is free
      const Put put{.peer = 1, .source = buffer.data(), .rows = 1, .row_bytes = 64};
      fill(buffer.data(), marks(0, 64, 1));
      buffer.put({&put, 1}, {1});
    } else {
      ::usleep(1'000'000);
      expect(look(self.group, buffer.data(), 64) == std::vector<std::byte>(64), "an untouched buffer");
      buffer.arrive({0});
    }
    settle(self.group);
  };
  const Failures failures = run_ranks(2, body, {.timeout = 400ms});
  REQUIRE(failures.size() == 2);
  CHECK_THAT(failures[0], ContainsSubstring("0: send: rank 0 heard nothing from rank 1 for 0.4 s"));
  CHECK_THAT(failures[1], ContainsSubstring("1: receive: rank 1 heard nothing from rank 0 for 0.4 s"));
}

TEST_CASE("copies between any addresses, of any widths, more than a launch takes") {
  if (!on_gpu()) return;
  CHECK(run_alone([](PeerMemory& device, PeerMemory& host) {
          std::mt19937 random(3);
          const auto below = [&](std::uint32_t bound) { return static_cast<std::int64_t>(random() % bound); };
          constexpr std::int64_t kBytes = 96'000'000;
          const std::vector<std::byte> source = marks(0, kBytes, 3);
          std::vector<std::byte> expected(kBytes);
          const auto from = hold(source);
          const auto to = hold(expected);
          std::vector<Copy> copies;
          std::vector<Copy> on_host;
          const auto add = [&](std::int64_t start, std::int64_t at, Copy copy) {
            copy.from = from.get() + start;
            copy.to = to.get() + at;
            copies.push_back(copy);
            copy.from = source.data() + start;
            copy.to = expected.data() + at;
            on_host.push_back(copy);
            return at + copy.rows * copy.to_stride;
          };
          std::int64_t end = 0;
          for (int i = 0; i < 300; ++i) {
            const std::int64_t unit = std::int64_t{1} << below(5);
            const std::int64_t row = (1 + below(200)) * unit;
            const std::int64_t off = below(3) / 2;  // one address in three
            end = (end + unit - 1) / unit * unit + off;
            end = add(below(1000) * unit + off, end,
                      {nullptr, nullptr, 1 + below(9), row, row + below(4) * unit, row + below(4) * unit});
          }
          end = add(0, (end + 15) / 16 * 16, {nullptr, nullptr, 1, 30'000'016, 0, 30'000'016});
          end = add(16, end, {nullptr, nullptr, 9'999, 3'072, 3'088, 3'073});
          expect(end <= kBytes, "room");
          device.copy(copies, nullptr);
          host.copy(on_host, nullptr);
          must(cudaDeviceSynchronize());
          std::vector<std::byte> got(kBytes);
          must(cudaMemcpy(got.data(), to.get(), got.size(), cudaMemcpyDefault));
          expect(got == expected, "the host's copies");
        }) == kNone);
}

TEST_CASE("a sum of more terms than a launch takes is added in their order") {
  if (!on_gpu()) return;
  CHECK(run_alone([](PeerMemory& device, PeerMemory& host) {
          constexpr std::int64_t kCount = 1'000'003;
          std::vector<float> values(kCount + 200);
          std::mt19937 random(4);
          for (float& value : values)
            value = std::ldexp(static_cast<float>(random() % 2001) - 1000, static_cast<int>(random() % 30));
          const auto held = hold_values(values);
          const auto result = hold_values(std::vector<float>(kCount));
          std::vector<const float*> terms;
          std::vector<const float*> on_host;
          for (int i = 0; i < 150; ++i) {
            terms.push_back(held.get() + i);
            on_host.push_back(values.data() + i);
          }
          std::vector<float> expected(kCount);
          device.sum(result.get(), terms, kCount, nullptr);
          host.sum(expected.data(), on_host, kCount, nullptr);
          std::vector<float> got(kCount);
          must(cudaMemcpy(got.data(), result.get(), kCount * sizeof(float), cudaMemcpyDefault));
          expect(std::ranges::equal(got, expected), "the host's sum");
        }) == kNone);
}

TEST_CASE("buffers give their memory back") {
  if (!on_gpu()) return;
  CHECK(run_ranks(2, [](Rank& self) {
          constexpr std::int64_t kBytes = 64 << 20;
          const auto free_bytes = [&] {
            settle(self.group);
            [[maybe_unused]] const auto both = self.group.share({});
            std::size_t free = 0;
            std::size_t all = 0;
            must(cudaMemGetInfo(&free, &all));
            [[maybe_unused]] const auto again = self.group.share({});
            return static_cast<std::int64_t>(free);
          };
          const auto round = [&] { static_cast<void>(self.group.allocate(kBytes)); };
          round();
          const std::int64_t before = free_bytes();
          for (int i = 0; i < 20; ++i) round();
          expect(free_bytes() > before - kBytes, "memory of twenty buffers");
        }) == kNone);
}

TEST_CASE("a GPU that this rank does not see is named") {
  if (!on_gpu() || relayed()) return;
  const Failures failures = run_alone([](PeerMemory& device, PeerMemory& /*host*/) {
    Handle handle{};
    const auto block = device.create(1, &handle);
    const std::string elsewhere = "ffff:ff:1f.0";
    std::ranges::copy(std::as_bytes(std::span(elsewhere)), handle.data() + sizeof(cudaIpcMemHandle_t));
    static_cast<void>(device.open(handle, 7));
  });
  REQUIRE(failures.size() == 1);
  CHECK_THAT(failures[0], ContainsSubstring("rank 0 does not see rank 7's GPU (ffff:ff:1f.0)"));
}
