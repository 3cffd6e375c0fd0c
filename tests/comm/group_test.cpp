#include "comm/group.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>

#include "comm/mesh.h"
#include "tests/catch.h"
#include "tests/comm/memory.h"
#include "tests/comm/ranks.h"

using namespace xdit::comm;
using namespace xdit::tests;

namespace {

constexpr int kMost = 8;
constexpr std::int64_t kBufferBytes = 24'000;

std::vector<std::byte> marked(Range range, std::int64_t salt) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(range.count));
  for (std::int64_t i = 0; i < range.count; ++i) bytes[i] = mark(range.first + i, salt);
  return bytes;
}

std::shared_ptr<std::byte> held(Range range, std::int64_t salt) {
  return hold(marked(range, salt));
}

void expect_marked(std::span<const std::byte> bytes, Range range, std::int64_t salt,
                   const std::string& what) {
  expect(std::ranges::equal(bytes, marked(range, salt)), what);
}

void expect_marked(const Group& group, const PeerBuffer& buffer, Range range, std::int64_t salt,
                   const std::string& what) {
  expect_marked(look(group, buffer.data(), range.count), range, salt, what);
}

std::vector<std::byte> after(std::vector<std::byte> bytes, int hops) {
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(std::to_integer<int>(byte) + hops);
  return bytes;
}

// Ranks reach an operation at different times.
void dawdle(int rank, int turn) {
  if ((rank * 7 + turn) % 5 == 0) ::usleep(static_cast<useconds_t>((rank * 13 + turn * 29) % 300));
}

// [tokens, 3, heads, width] of this rank's tokens becomes [3, all tokens, own heads, width], as Ulysses does.
void scatter_heads(Group& group, PeerBuffer& buffer, std::mt19937& random, int turn) {
  constexpr std::int64_t kHeads = 9;
  constexpr std::int64_t kWidth = 5;
  const std::int64_t total = static_cast<std::int64_t>(random() % 40);
  const std::vector<Range> tokens = cut(total, group.size(), random);
  const std::vector<Range> heads = cut(kHeads, group.size(), random);
  const Range mine = tokens[group.rank()];
  const auto qkv = held({mine.first * 3 * kHeads * kWidth, mine.count * 3 * kHeads * kWidth}, turn);
  std::vector<Put> puts;
  for (const int peer : group.everyone()) {
    const std::int64_t row_bytes = heads[peer].count * kWidth;
    for (std::int64_t k = 0; k < 3; ++k) {
      puts.push_back({.peer = peer,
                      .source = qkv.get() + (k * kHeads + heads[peer].first) * kWidth,
                      .rows = mine.count,
                      .row_bytes = row_bytes,
                      .source_stride = 3 * kHeads * kWidth,
                      .offset = (k * total + mine.first) * row_bytes,
                      .stride = row_bytes});
    }
  }
  group.all_to_all_v(puts, buffer);
  const Range own = heads[group.rank()];
  const std::int64_t row = own.count * kWidth;
  const std::vector<std::byte> got = look(group, buffer.data(), 3 * total * row);
  for (std::int64_t k = 0; k < 3; ++k) {
    for (std::int64_t token = 0; token < total; ++token) {
      expect_marked({got.data() + (k * total + token) * row, static_cast<std::size_t>(row)},
                    {((token * 3 + k) * kHeads + own.first) * kWidth, row}, turn,
                    fmt::format("heads of turn {}, token {}", turn, token));
    }
  }
}

void exchange_halos(Group& group, PeerBuffer& buffer, std::mt19937& random, int turn) {
  constexpr std::int64_t kPlanes = 3;
  constexpr std::int64_t kRow = 17;
  const std::int64_t total = static_cast<std::int64_t>(random() % 30);
  const std::vector<Range> owned = cut(total, group.size(), random);
  const std::vector<Range> wanted = with_halo(owned, turn % 3, turn % 4);
  const Range mine = owned[group.rank()];
  std::vector<std::byte> slab;
  for (std::int64_t plane = 0; plane < kPlanes; ++plane) {
    const auto rows = marked({(plane * total + mine.first) * kRow, mine.count * kRow}, turn);
    slab.insert(slab.end(), rows.begin(), rows.end());
  }
  const auto source = hold(slab);
  group.gather_rows({source.get(), kPlanes, mine.count * kRow, kRow}, owned, wanted, buffer);
  const Range rows = wanted[group.rank()];
  const std::int64_t bytes = rows.count * kRow;
  const std::vector<std::byte> got = look(group, buffer.data(), kPlanes * bytes);
  for (std::int64_t plane = 0; plane < kPlanes; ++plane) {
    expect_marked({got.data() + plane * bytes, static_cast<std::size_t>(bytes)},
                  {(plane * total + rows.first) * kRow, bytes}, turn, fmt::format("halo of turn {}", turn));
  }
}

float term(std::int64_t rank, std::int64_t i) {
  return std::ldexp(static_cast<float>((rank * 37 + i * 11) % 101 - 50),
                    static_cast<int>((rank * 5 + i) % 24));
}

void sum_up(Group& group, PeerBuffer& staging, const std::vector<Range>& parts, std::int64_t total) {
  std::vector<float> source(static_cast<std::size_t>(total));
  for (std::int64_t i = 0; i < total; ++i) source[i] = term(group.rank(), i);
  const Range mine = parts[group.rank()];
  const auto terms = hold_values(source);
  const auto result = hold_values(std::vector<float>(static_cast<std::size_t>(mine.count)));
  group.sum(terms.get(), parts, staging, result.get());
  const auto got = look_values(group, result.get(), mine.count);
  for (std::int64_t i = 0; i < mine.count; ++i) {
    float expected = term(0, mine.first + i);
    for (int rank = 1; rank < group.size(); ++rank) expected += term(rank, mine.first + i);
    expect(std::bit_cast<std::uint32_t>(got[i]) == std::bit_cast<std::uint32_t>(expected),
           fmt::format("sum of element {}", i));
  }
}

// Every operation in turn, with other sizes each time, on one buffer.
void run_everything(Group& group, PeerBuffer& buffer, std::uint32_t seed, int turns) {
  std::mt19937 random(seed);
  for (int turn = 0; turn < turns; ++turn) {
    dawdle(group.rank(), turn);
    const std::int64_t total = static_cast<std::int64_t>(random() % 3000);
    const std::vector<Range> parts = cut(total, group.size(), random);
    group.all_gather_v(held(parts[group.rank()], turn).get(), parts, buffer);
    expect_marked(group, buffer, {0, total}, turn, fmt::format("all_gather of turn {}", turn));

    const int root = static_cast<int>(random() % group.size());
    const auto news = held({5, group.rank() == root ? total : 0}, turn);
    group.broadcast(news.get(), total, root, buffer);
    expect_marked(group, buffer, {5, total}, turn, fmt::format("broadcast of turn {}", turn));

    scatter_heads(group, buffer, random, turn);
    exchange_halos(group, buffer, random, turn);
    const std::int64_t elements = total / 8;
    sum_up(group, buffer, cut(elements, group.size(), random), elements);
    sum_up(group, buffer, std::vector<Range>(group.size(), Range{0, elements}), elements);
    group.barrier();
  }
}

}  // namespace

TEST_CASE("every operation equals a plain reference at every group size") {
  for (int size = 1; size <= kMost; ++size) {
    CAPTURE(size);
    CHECK(run_ranks(size, [](Rank& self) {
            PeerBuffer buffer = self.group.allocate(kBufferBytes);
            run_everything(self.group, buffer, 11, on_gpu() ? 8 : 20);  // ranks on one GPU take turns of 2 ms
          }) == kNone);
  }
}

TEST_CASE("sub-groups work side by side, and sub-groups of those") {
  const Mesh mesh({1, 2, 1, 2, 2, 1});
  CHECK(run_ranks(mesh.size(), [&](Rank& self) {
          const std::vector<int> members = mesh.members(self.group.rank(), {Axis::kTokens, Axis::kUlysses});
          Group tokens = self.group.split(members.front());
          expect(tokens.members() == members, "members of a branch");
          const std::vector<int> pair = mesh.members(self.group.rank(), {Axis::kUlysses});
          Group ulysses = tokens.split(pair.front());
          expect(ulysses.members() == pair, "members of a pair");
          expect(self.group.members()[pair[ulysses.rank()]] == self.group.rank(), "own place");
          Group again = self.group.split(0);
          for (Group* group : {&tokens, &ulysses, &again}) {
            PeerBuffer buffer = group->allocate(kBufferBytes);
            run_everything(*group, buffer, static_cast<std::uint32_t>(group->members().front()), 6);
          }
          Group alone = self.group.split(self.group.rank());
          PeerBuffer buffer = alone.allocate(kBufferBytes);
          run_everything(alone, buffer, 3, 3);
        }) == kNone);
}

TEST_CASE("messages posted ahead arrive in order while collectives run") {
  for (int size = 1; size <= kMost; ++size) {
    CAPTURE(size);
    CHECK(run_ranks(size, [](Rank& self) {
            constexpr int kSlots = 3;
            constexpr Range kMessage{0, 1000};
            Group& group = self.group;
            const int next = (group.rank() + 1) % group.size();
            const int previous = (group.rank() + group.size() - 1) % group.size();
            std::vector<PeerBuffer> slots;
            for (int i = 0; i < kSlots; ++i) {
              slots.push_back(group.allocate(kMessage.count));
              slots.back().post({previous});
            }
            PeerBuffer gathered = group.allocate(group.size());
            for (int turn = 0; turn < (on_gpu() ? 60 : 300); ++turn) {
              dawdle(group.rank(), turn);
              PeerBuffer& slot = slots[turn % kSlots];
              const auto message = held(kMessage, turn * kMost + group.rank());
              const Put put{.peer = next, .source = message.get(), .rows = 1, .row_bytes = kMessage.count};
              slot.put({&put, 1}, {next});
              if (turn % 10 == 0) {
                std::vector<Range> parts;
                for (const int peer : group.everyone()) parts.push_back({peer, 1});
                group.all_gather_v(held({group.rank(), 1}, turn).get(), parts, gathered);
                expect_marked(group, gathered, {0, group.size()}, turn, "gathered beside");
              }
              slot.arrive({previous});
              expect_marked(group, slot, kMessage, turn * kMost + previous, fmt::format("message {}", turn));
              slot.post({previous});
            }
            group.barrier();
          }) == kNone);
  }
}

TEST_CASE("two ranks that send to each other at once both get all, whatever the sizes") {
  for (int size = 1; size <= kMost; ++size) {
    CAPTURE(size);
    CHECK(
        run_ranks(size, [](Rank& self) {
          Group& group = self.group;
          const std::int64_t rank = group.rank();
          PeerBuffer buffer = group.allocate(kBufferBytes);
          std::mt19937 random(3);
          for (int turn = 0; turn < (on_gpu() ? 12 : 60); ++turn) {
            const auto partner = static_cast<int>((turn % group.size() - rank + group.size()) % group.size());
            std::vector<std::int64_t> lengths;  // of what each rank sends, nothing among them
            for (int i = 0; i < group.size(); ++i)
              lengths.push_back(i % 3 == 0 ? 0 : static_cast<std::int64_t>(random() % kBufferBytes));
            std::ranges::shuffle(lengths, random);
            dawdle(group.rank(), turn);
            const Range mine{rank, lengths[rank]};
            const auto message = held(mine, turn);
            const Put put{.peer = partner, .source = message.get(), .rows = 1, .row_bytes = mine.count};
            buffer.post({partner});
            buffer.put({&put, 1}, {partner});
            buffer.arrive({partner});
            expect_marked(group, buffer, {partner, lengths[partner]}, turn, fmt::format("message {}", turn));
          }
          group.barrier();
        }) == kNone);
  }
}

// As PipeFusion's stages: bands of unlike lengths go down a chain that adds to them, all places are posted at
// first, and the last rank sends to the first. Ranks of one GPU take turns of some ms at every hop: few of
// them there.
TEST_CASE("bands posted ahead go round a chain while others are under way") {
  const int most = on_gpu() ? 4 : kMost;
  for (int size = 1; size <= most; ++size) {
    CAPTURE(size);
    CHECK(run_ranks(size, [](Rank& self) {
            Group& group = self.group;
            const int next = (group.rank() + 1) % group.size();
            const int previous = (group.rank() + group.size() - 1) % group.size();
            std::mt19937 random(8);
            const int rounds = on_gpu() ? 2 : 30;
            const std::vector<Range> bands = cut(kBufferBytes, group.size() + 2, random);
            PeerBuffer buffer = group.allocate(kBufferBytes);
            for (std::size_t i = 0; i < bands.size(); ++i) buffer.post({previous});
            std::vector<std::shared_ptr<std::byte>> sources;
            const auto send = [&](const Range& band, const std::vector<std::byte>& bytes) {
              sources.push_back(hold(bytes));
              const Put put{.peer = next,
                            .source = sources.back().get(),
                            .rows = 1,
                            .row_bytes = band.count,
                            .offset = band.first};
              buffer.put({&put, 1}, {next});
            };
            if (group.rank() == 0)
              for (const Range& band : bands) send(band, marked(band, 0));
            for (int round = 0; round < rounds; ++round)
              for (const Range& band : bands) {
                dawdle(group.rank(), round);
                buffer.arrive({previous});
                std::vector<std::byte> bytes = look(group, buffer.data() + band.first, band.count);
                expect(bytes == after(marked(band, 0), round * group.size() + previous),
                       fmt::format("band {} of round {}", band.first, round));
                buffer.post({previous});
                if (group.rank() > 0 || round + 1 < rounds) send(band, after(std::move(bytes), 1));
              }
            group.barrier();
          }) == kNone);
  }
}

TEST_CASE("a rank knows how long it has waited for one that is late; that one has waited for none") {
  const auto body = [](Rank& self) {
    Group& group = self.group;
    const bool late = group.rank() == 1;
    PeerBuffer buffer = group.allocate(0);
    if (!late) buffer.post({1});
    settle(group);
    const double before_s = group.waited_s();
    [[maybe_unused]] const auto both_are_here = group.share({});
    const auto start = std::chrono::steady_clock::now();
    if (late) {
      ::usleep(50'000);
      buffer.put({}, {0});
    } else {
      buffer.arrive({1});
    }
    settle(group);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    const double waited_s = group.waited_s() - before_s;
    const bool right = late ? waited_s < 0.02 : waited_s > 0.04 && waited_s <= passed.count();
    expect(right, fmt::format("{} s of {}", waited_s, passed.count()));
  };
  CHECK(run_ranks(2, body) == kNone);
}

TEST_CASE("a gather in place copies nothing onto itself") {
  CHECK(run_ranks(3, [](Rank& self) {
          const std::vector<Range> parts{{0, 5}, {5, 0}, {5, 7}};
          PeerBuffer buffer = self.group.allocate(12);
          const Range mine = parts[self.group.rank()];
          fill(buffer.data() + mine.first, marked(mine, 1));
          self.group.all_gather_v(buffer.data() + mine.first, parts, buffer);
          expect_marked(self.group, buffer, {0, 12}, 1, "in place");
        }) == kNone);
}

TEST_CASE("parts differ in size, and a put outside one is refused") {
  CHECK(run_ranks(3, [](Rank& self) {
          const std::int64_t bytes = std::int64_t{100} * self.group.rank();
          PeerBuffer buffer = self.group.allocate(bytes);
          expect(buffer.bytes() == bytes, "own size");
          const auto source = held({0, 101}, 0);
          const Put fits{.peer = 1, .source = source.get(), .rows = 1, .row_bytes = 100};
          if (self.group.rank() == 1) buffer.post({2});
          if (self.group.rank() == 2) buffer.put({&fits, 1}, {1});
          if (self.group.rank() == 1) buffer.arrive({2});
          for (Put put :
               {Put{.peer = 1, .source = source.get(), .rows = 1, .row_bytes = 101},
                Put{.peer = 1, .source = source.get(), .rows = 2, .row_bytes = 1, .offset = 99, .stride = 1},
                Put{.peer = 0, .source = source.get(), .rows = 1, .row_bytes = 1}}) {
            bool refused = false;
            try {
              buffer.put({&put, 1}, {put.peer});
            } catch (const xdit::Error& error) {
              refused = error.code() == xdit::ExitCode::kInternal;
            }
            expect(refused, "a put outside the part");
          }
          self.group.barrier();
        }) == kNone);
}
