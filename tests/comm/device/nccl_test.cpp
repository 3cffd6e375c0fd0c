// NCCL and peer memory are each other's reference: the same bytes from every operation. Sizes above 1 need a
// GPU a rank, which NCCL insists on, and do nothing where there are fewer. XDIT_TEST_CUDA runs it.
#include "comm/nccl.h"

#include <signal.h>  // NOLINT: raise is POSIX's

#include "comm/device_memory.h"
#include "comm/nccl_window.h"
#include "tests/catch.h"
#include "tests/comm/device/cuda.h"
#include "tests/comm/memory.h"
#include "tests/comm/ranks.h"

using namespace xdit::comm;
using namespace xdit::tests;
using namespace std::chrono_literals;

namespace {

struct Both {
  Group& group;
  NcclGroup& nccl;
  std::shared_ptr<std::byte> source;
  PeerBuffer& ours;
  std::shared_ptr<std::byte> theirs;
  std::vector<std::byte> blank;

  void compare(const std::string& what, const std::function<void()>& peer_memory,
               const std::function<void(std::byte* to)>& other) {
    fill(ours.data(), blank);
    fill(theirs.get(), blank);
    peer_memory();
    other(theirs.get());
    const auto bytes = static_cast<std::int64_t>(blank.size());
    const std::vector<std::byte> expected = look(group, ours.data(), bytes);
    nccl.check();
    expect(look(group, theirs.get(), bytes) == expected, what);
    group.barrier();  // the next filling may come
    settle(group);
  }
};

void compare_all(Both& both, std::uint32_t seed) {
  std::mt19937 random(seed);
  Group& group = both.group;
  const int rank = group.rank();
  const std::int64_t total = static_cast<std::int64_t>(random() % 2'000);
  const std::vector<Range> parts = cut(total, group.size(), random);
  both.compare(
      "all_gather", [&] { group.all_gather_v(both.source.get(), parts, both.ours); },
      [&](std::byte* to) { both.nccl.all_gather_v(both.source.get(), parts, to); });

  const std::vector<Range> wanted = with_halo(parts, 3, 2);
  const Slab slab{both.source.get(), 3, parts[rank].count * 7, 7};
  both.compare(
      "gather_rows", [&] { group.gather_rows(slab, parts, wanted, both.ours); },
      [&](std::byte* to) { both.nccl.gather_rows(slab, parts, wanted, to); });

  const int root = static_cast<int>(random() % static_cast<std::uint32_t>(group.size()));
  both.compare(
      "broadcast", [&] { group.broadcast(both.source.get(), total, root, both.ours); },
      [&](std::byte* to) { both.nccl.broadcast(both.source.get(), total, root, to); });

  // Heads of every token, as Ulysses swaps them.
  const std::vector<Range> heads = cut(9, group.size(), random);
  const std::vector<Range> tokens = cut(total / 9, group.size(), random);
  std::vector<Put> puts;
  std::vector<Put> takes;
  for (const int peer : group.everyone()) {
    const std::int64_t row = heads[peer].count * 5;
    puts.push_back({.peer = peer,
                    .source = both.source.get() + heads[peer].first * 5,
                    .rows = tokens[rank].count,
                    .row_bytes = row,
                    .source_stride = 45,
                    .offset = tokens[rank].first * row,
                    .stride = row});
    const std::int64_t mine = heads[rank].count * 5;
    takes.push_back({.peer = peer,
                     .rows = tokens[peer].count,
                     .row_bytes = mine,
                     .offset = tokens[peer].first * mine,
                     .stride = mine});
  }
  both.compare(
      "all_to_all", [&] { group.all_to_all_v(puts, both.ours); },
      [&](std::byte* to) { both.nccl.all_to_all_v(puts, takes, to); });

  const auto* const terms = reinterpret_cast<const float*>(both.source.get());
  const std::vector<Range> elements = cut(total / 4, group.size(), random);
  PeerBuffer staging = group.allocate(elements[rank].count * 4 * group.size());
  const auto apart = hold(std::vector<std::byte>(static_cast<std::size_t>(staging.bytes())));
  both.compare(
      "sum", [&] { group.sum(terms, elements, staging, reinterpret_cast<float*>(both.ours.data())); },
      [&](std::byte* to) { both.nccl.sum(terms, elements, apart.get(), reinterpret_cast<float*>(to)); });
}

// `body` in ranks with a GPU and a communicator each; nothing where there are too few GPUs.
Failures run_nccl(int size, const std::function<void(Rank&, NcclGroup&)>& body) {
  return run_ranks(size, [&](Rank& self) {
    int devices = 0;
    must(cudaGetDeviceCount(&devices));
    if (devices < size) return;
    const int rank = self.group.rank();
    const std::shared_ptr<const Job> job(&self.job, [](const Job*) {});
    NcclGroup nccl(self.group, job, device_memory(job, rank, rank, 20s), rank, 20s);
    body(self, nccl);
  });
}

}  // namespace

TEST_CASE("NCCL gives the bytes that peer memory gives") {
  if (!on_gpu()) return;
  for (const int size : {1, 2, 4, 8}) {
    CAPTURE(size);
    CHECK(run_nccl(size, [](Rank& self, NcclGroup& nccl) {
            constexpr std::int64_t kBytes = 50'000;
            std::vector<std::byte> bytes;  // small integers as floats: every order of a sum would do
            for (std::int64_t i = 0; i < kBytes / 4; ++i) {
              const float value = static_cast<float>((i * 31 + self.group.rank() * 7) % 1000);
              const auto raw = std::as_bytes(std::span(&value, 1));
              bytes.insert(bytes.end(), raw.begin(), raw.end());
            }
            PeerBuffer ours = self.group.allocate(kBytes);
            Both both{self.group, nccl, hold(bytes), ours, hold(bytes), std::vector<std::byte>(kBytes)};
            for (std::uint32_t turn = 0; turn < 8; ++turn) compare_all(both, turn);
            nccl.close();
          }) == kNone);
  }
}

TEST_CASE("an operation of NCCL replays in a graph") {
  if (!on_gpu()) return;
  for (const int size : {1, 2}) {
    CAPTURE(size);
    CHECK(run_nccl(size, [](Rank& self, NcclGroup& nccl) {
            const int count = self.group.size();
            std::vector<Range> parts;
            for (const int peer : self.group.everyone()) parts.push_back({peer, 1});
            const auto mine = hold(std::vector<std::byte>(1));
            const auto all = hold(std::vector<std::byte>(static_cast<std::size_t>(count)));
            const auto gather = [&](Stream stream) {
              nccl.all_gather_v(mine.get(), parts, all.get(), stream);
            };
            gather(nullptr);
            settle(self.group);
            const Graph graph(gather);
            for (int turn = 0; turn < 20; ++turn) {
              fill(mine.get(), std::vector{mark(self.group.rank(), turn)});
              graph.launch();
              graph.synchronise();
              std::vector<std::byte> expected;
              for (const int peer : self.group.everyone()) expected.push_back(mark(peer, turn));
              expect(look(self.group, all.get(), count) == expected, "gathered");
            }
          }) == kNone);
  }
}

TEST_CASE("within NCCL's windows parts are gathered and added up, in a graph as well") {
  if (!on_gpu()) return;
  for (const int size : {2, 4, 8}) {
    CAPTURE(size);
    CHECK(run_nccl(size, [](Rank& self, NcclGroup& nccl) {
            constexpr std::int64_t kCount = 10'000;  // floats of a part
            const int ranks = self.group.size(), rank = self.group.rank();
            const auto value = [](int of, std::int64_t i) {
              return static_cast<float>((i * 31 + of * 7) % 1000);
            };
            const auto bytes_of = [](const std::vector<float>& values) {
              const auto raw = std::as_bytes(std::span(values));
              return std::vector<std::byte>(raw.begin(), raw.end());
            };
            std::vector<float> mine, parts, sum(kCount, 0);
            for (std::int64_t i = 0; i < ranks * kCount; ++i) {
              mine.push_back(value(rank, i));
              parts.push_back(value(static_cast<int>(i / kCount), i));
            }
            for (std::int64_t i = 0; i < kCount; ++i)
              for (int of = 0; of < ranks; ++of) sum[i] += value(of, rank * kCount + i);
            {
              const NcclWindow window(nccl, ranks * kCount * 4);
              const auto gather = [&](Stream stream) { nccl.all_gather(window, kCount * 4, stream); };
              const auto add = [&](Stream stream) { nccl.reduce_scatter(window, kCount, stream); };
              const auto from_mine = [&](const std::function<void()>& run) {
                fill(window.data(), bytes_of(mine));
                settle(self.group);
                run();
                nccl.check();
              };
              const auto gathered = [&] { return look(self.group, window.data(), ranks * kCount * 4); };
              const auto added = [&] {
                return look(self.group, window.data() + rank * kCount * 4, kCount * 4);
              };
              from_mine([&] { gather(nullptr); });
              expect(gathered() == bytes_of(parts), "gathered");
              from_mine([&] { add(nullptr); });
              expect(added() == bytes_of(sum), "added up");
              const Graph gathers(gather), adds(add);
              const auto replay = [](const Graph& graph) {
                graph.launch();
                graph.synchronise();
              };
              from_mine([&] { replay(gathers); });
              expect(gathered() == bytes_of(parts), "gathered in a graph");
              from_mine([&] { replay(adds); });
              expect(added() == bytes_of(sum), "added up in a graph");
              self.group.barrier();
              settle(self.group);
            }
            nccl.close();
          }) == kNone);
  }
}

TEST_CASE("an abort of the job ends what waits in NCCL") {
  if (!on_gpu()) return;
  const Failures failures = run_nccl(2, [](Rank& self, NcclGroup& nccl) {
    const auto bytes = hold(std::vector<std::byte>(100));
    const auto start = std::chrono::steady_clock::now();
    if (self.group.rank() == 1) {
      self.job.abort(1);
      return;
    }
    nccl.broadcast(nullptr, 100, 1, bytes.get());
    static_cast<void>(cudaStreamSynchronize(nullptr));
    expect(std::chrono::steady_clock::now() - start < 10s, "at once");
    nccl.check();
  });
  for (const std::string& failure : failures)
    CHECK_THAT(failure, ContainsSubstring("rank 1 failed while rank 0"));
}
