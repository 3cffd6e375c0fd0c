// bench_comm 0,1 [host] (or 0,0 or cpu,cpu): a rank for each device runs every operation of a Group at
// FLUX.1's 1024 px sizes. Prints the time of one (out of a captured graph on GPUs; the slowest rank's) and
// the bytes that a rank gets from others in it; then those of NCCL's sends and receives, and, where parts are
// equal, of its collective of as many bytes, each part in one piece, within its symmetric windows. host:
// through the host's memory, as where GPUs do not reach each other.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>

#include "comm/device_memory.h"
#include "comm/nccl.h"
#include "comm/nccl_window.h"
#include "comm/pinned_memory.h"
#include "comm/relayed_memory.h"
#include "tests/comm/device/cuda.h"
#include "tests/comm/memory.h"
#include "tests/comm/ranks.h"

using namespace xdit::comm;
using namespace xdit::tests;

namespace {

using Enqueue = std::function<void(Stream)>;

constexpr std::int64_t kTokens = 4608;
constexpr std::int64_t kHeads = 24;
constexpr std::int64_t kHeadBytes = 256;  // 128 channels of bf16
constexpr std::int64_t kTokenBytes = kHeads * kHeadBytes;

std::vector<Range> even(std::int64_t total, std::int64_t size) {
  std::vector<Range> parts;
  for (std::int64_t i = 0; i < size; ++i) {
    const std::int64_t first = total * i / size;
    parts.push_back({first, total * (i + 1) / size - first});
  }
  return parts;
}

double seconds_of_graph(Group& group, const Enqueue& enqueue) {
  constexpr int kOperations = 10;  // in a graph
  constexpr int kReplays = 10;
  const Graph graph([&](Stream stream) {
    for (int i = 0; i < kOperations; ++i) enqueue(stream);
  });
  std::array<cudaEvent_t, 2> events{};
  for (cudaEvent_t& event : events) must(cudaEventCreate(&event));
  for (int i = -2; i < kReplays; ++i) {
    if (i == 0) must(cudaEventRecord(events[0], graph.stream()));
    graph.launch();
  }
  must(cudaEventRecord(events[1], graph.stream()));
  graph.synchronise();
  group.check();
  float ms = 0;
  must(cudaEventElapsedTime(&ms, events[0], events[1]));
  for (cudaEvent_t event : events) must(cudaEventDestroy(event));
  return ms / 1e3 / (kOperations * kReplays);
}

double seconds_of_calls(const Enqueue& call) {
  constexpr int kCalls = 20;
  call(nullptr);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) call(nullptr);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kCalls;
}

// Of the slowest rank.
double seconds_of(Group& group, const Enqueue& enqueue) {
  group.barrier();
  settle(group);
  const double mine = on_gpu() ? seconds_of_graph(group, enqueue) : seconds_of_calls(enqueue);
  double seconds = 0;
  for (const Group::Shared& theirs : group.share(std::as_bytes(std::span(&mine, 1)))) {
    double value = 0;
    std::memcpy(&value, theirs.data(), sizeof value);
    seconds = std::max(seconds, value);
  }
  return seconds;
}

struct Bench {
  Group& group;
  NcclGroup* nccl;  // null where NCCL cannot be

  void line(const std::string& name, std::int64_t bytes, const Enqueue& enqueue, const Enqueue& by_nccl,
            const Enqueue& by_windows = {}) const {
    const double seconds = seconds_of(group, enqueue);
    double nccl_seconds = 0;
    if (nccl != nullptr && by_nccl) {
      by_nccl(nullptr);  // takes its staging memory
      nccl_seconds = seconds_of(group, by_nccl);
    }
    const double window_seconds = nccl != nullptr && by_windows ? seconds_of(group, by_windows) : 0;
    if (group.rank() != 0) return;
    const auto rate = [&](double s) { return static_cast<double>(bytes) / s / 1e9; };
    fmt::print("{:<44} {:>8.2f} MB {:>9.1f} us {:>6.1f} GB/s", name, static_cast<double>(bytes) / 1e6,
               seconds * 1e6, rate(seconds));
    if (nccl_seconds > 0)
      fmt::print("   NCCL {:>9.1f} us {:>6.1f} GB/s", nccl_seconds * 1e6, rate(nccl_seconds));
    if (window_seconds > 0)
      fmt::print("   windows {:>9.1f} us {:>6.1f} GB/s", window_seconds * 1e6, rate(window_seconds));
    fmt::print("\n");
    static_cast<void>(std::fflush(stdout));
  }
};

void run_all(Group& group, NcclGroup* nccl) {
  const Bench bench{group, nccl};
  const std::int64_t size = group.size();
  const int rank = group.rank();
  const auto source = hold(std::vector<std::byte>(kTokens * 3072 * 4));
  const std::vector<Range> tokens = even(kTokens, size);
  std::optional<NcclWindow> window;
  if (nccl != nullptr && kTokens * 3072 % size == 0) window.emplace(*nccl, kTokens * 3072 * 4);
  // Of so many bytes in all.
  const auto within = [&](std::int64_t bytes) -> Enqueue {
    if (!window) return {};
    return [&, bytes](Stream stream) { nccl->all_gather(*window, bytes / size, stream); };
  };
  const std::vector<Range> heads = even(kHeads, size);
  const Range mine = tokens[rank];
  bench.line("barrier", 0, [&](Stream stream) { group.barrier(stream); }, {});
  {
    PeerBuffer to = group.allocate(3 * kTokens * heads[rank].count * kHeadBytes);
    std::vector<Put> puts;
    std::vector<Put> takes;
    for (const int peer : group.everyone())
      for (std::int64_t plane = 0; plane < 3; ++plane) {
        const std::int64_t row = heads[peer].count * kHeadBytes;
        puts.push_back(
            {.peer = peer,
             .source = source.get() + plane * mine.count * kTokenBytes + heads[peer].first * kHeadBytes,
             .rows = mine.count,
             .row_bytes = row,
             .source_stride = kTokenBytes,
             .offset = (plane * kTokens + mine.first) * row,
             .stride = row});
        const std::int64_t own = heads[rank].count * kHeadBytes;
        takes.push_back({.peer = peer,
                         .rows = tokens[peer].count,
                         .row_bytes = own,
                         .offset = (plane * kTokens + tokens[peer].first) * own,
                         .stride = own});
      }
    bench.line(
        "all_to_all of q, k, v (Ulysses)", 3 * (kTokens - mine.count) * heads[rank].count * kHeadBytes,
        [&](Stream stream) { group.all_to_all_v(puts, to, stream); },
        [&](Stream stream) { nccl->all_to_all_v(puts, takes, to.data(), stream); });
  }
  {
    PeerBuffer to = group.allocate(2 * kTokens * kTokenBytes);
    const std::vector<Range> all(tokens.size(), Range{0, kTokens});
    const Slab slab{source.get(), 2, mine.count * kTokenBytes, kTokenBytes};
    bench.line(
        "gather_rows of k, v", 2 * (kTokens - mine.count) * kTokenBytes,
        [&](Stream stream) { group.gather_rows(slab, tokens, all, to, stream); },
        [&](Stream stream) { nccl->gather_rows(slab, tokens, all, to.data(), stream); },
        within(2 * kTokens * kTokenBytes));
  }
  {
    const std::vector<Range> image = even(4096 * 64 * 2, size);
    PeerBuffer to = group.allocate(4096 * 64 * 2);
    bench.line(
        "all_gather of latents", image.back().end() - image[rank].count,
        [&](Stream stream) { group.all_gather_v(source.get(), image, to, stream); },
        [&](Stream stream) { nccl->all_gather_v(source.get(), image, to.data(), stream); },
        within(4096 * 64 * 2));
  }
  {
    const std::int64_t bytes = 4096 / size * kTokenBytes;
    PeerBuffer to = group.allocate(bytes);
    const int next = static_cast<int>((rank + 1) % size);
    const int previous = static_cast<int>((rank + size - 1) % size);
    const Put put{.peer = next, .source = source.get(), .rows = 1, .row_bytes = bytes};
    bench.line("send and receive at once: a band's state", size > 1 ? bytes : 0,
               [&](Stream stream) {
                 to.post({previous}, stream);
                 to.put({&put, 1}, {next}, stream);
                 to.arrive({previous}, stream);
               },
               {});
  }
  {
    constexpr std::int64_t kRow = 1024 * 128 * 2;  // pixels, channels, bf16
    const std::vector<Range> rows = even(128, size);
    const std::vector<Range> wide = with_halo(rows, 1, 1);
    PeerBuffer to = group.allocate(wide[rank].count * kRow);
    const Slab slab{to.data() + (rows[rank].first - wide[rank].first) * kRow, 1, 0, kRow};  // in place
    bench.line(
        "gather_rows of the decoder's halos", (wide[rank].count - rows[rank].count) * kRow,
        [&](Stream stream) { group.gather_rows(slab, rows, wide, to, stream); },
        [&](Stream stream) { nccl->gather_rows(slab, rows, wide, to.data(), stream); });
  }
  {
    constexpr std::int64_t kBytes = 4 << 20;
    PeerBuffer to = group.allocate(kBytes);
    bench.line(
        "broadcast of prompt embeddings", kBytes,
        [&](Stream stream) { group.broadcast(source.get(), kBytes, 0, to, stream); },
        [&](Stream stream) { nccl->broadcast(source.get(), kBytes, 0, to.data(), stream); });
  }
  {
    const std::vector<Range> parts = even(kTokens * 3072, size);
    PeerBuffer staging = group.allocate(parts[rank].count * 4 * size);
    const auto to = hold(std::vector<std::byte>(static_cast<std::size_t>(parts[rank].count) * 4));
    const auto* const terms = reinterpret_cast<const float*>(source.get());
    auto* const result = reinterpret_cast<float*>(to.get());
    bench.line(
        "sum of activations in fp32 (reduce-scatter)", (size - 1) * parts[rank].count * 4,
        [&](Stream stream) { group.sum(terms, parts, staging, result, stream); },
        [&](Stream stream) { nccl->sum(terms, parts, staging.data(), result, stream); },
        window ? [&](Stream stream) { nccl->reduce_scatter(*window, kTokens * 3072 / size, stream); }
               : Enqueue());
  }
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> devices;
  std::istringstream list(count > 1 ? arguments[1] : "");
  for (std::string device; std::getline(list, device, ',');) devices.push_back(device);
  const bool host = count == 3 && std::string_view(arguments[2]) == "host";
  if (devices.empty() || (count > 2 && !host)) {
    fmt::print(stderr, "usage: bench_comm DEVICE,DEVICE... [host]  (0,1 or 0,0 or cpu,cpu)\n");
    return 2;
  }
  if (devices[0] != "cpu") ::setenv("XDIT_TEST_CUDA", "1", 1);
  const auto memory_of = [&](const std::shared_ptr<const Job>& job, int rank,
                             std::chrono::nanoseconds timeout) -> std::shared_ptr<PeerMemory> {
    const int device = std::atoi(devices[rank].c_str());
    if (on_gpu())
      return host ? pinned_memory(job, rank, device, timeout) : device_memory(job, rank, device, timeout);
    if (host) return std::make_shared<RelayedMemory>(job, rank, timeout);
    return std::make_shared<HostMemory>(job, rank, timeout);
  };
  const auto size = static_cast<int>(devices.size());
  const std::shared_ptr<Job> job = Job::create(size);
  const bool apart = std::set(devices.begin(), devices.end()).size() == devices.size();
  const Failures failures = run_processes(size, [&](int rank) {
    constexpr std::chrono::seconds kTimeout{30};
    const int device = std::atoi(devices[rank].c_str());
    const std::shared_ptr<PeerMemory> memory = memory_of(job, rank, kTimeout);
    Group group = Group::world(job, rank, kTimeout, memory);
    std::unique_ptr<NcclGroup> nccl;
    if (on_gpu() && apart) nccl = std::make_unique<NcclGroup>(group, job, memory, device, kTimeout);
    run_all(group, nccl.get());
    settle(group);
    [[maybe_unused]] const auto all_are_done = group.share({});
  });
  for (const std::string& failure : failures) fmt::print(stderr, "rank {}\n", failure);
  return failures.empty() ? 0 : 1;
}
