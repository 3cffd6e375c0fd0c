#include "comm/rows.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <random>

#include "tests/catch.h"
#include "tests/comm/ranks.h"

using namespace xdit::comm;
using xdit::tests::cut;
using xdit::tests::mark;
using Ranges = std::vector<Range>;

TEST_CASE("halos are cut at the picture's edges and skip empty slabs") {
  const Ranges owned{{0, 3}, {3, 0}, {3, 1}, {4, 6}};
  CHECK(with_halo(owned, 1, 2) == Ranges{{0, 5}, {3, 0}, {2, 4}, {3, 7}});
  CHECK(with_halo(owned, 0, 0) == owned);
  CHECK(with_halo(owned, 9, 9) == Ranges{{0, 10}, {3, 0}, {0, 10}, {0, 10}});
  const Ranges none{{4, 0}, {4, 0}};
  CHECK(with_halo(none, 1, 1) == none);
}

TEST_CASE("who puts to whom is seen alike from both ends") {
  const Ranges owned{{0, 3}, {3, 0}, {3, 1}, {4, 6}};
  const Ranges wanted = with_halo(owned, 2, 2);
  CHECK(sources(owned, wanted, 3) == std::vector<int>{0, 2, 3});  // its two rows above lie on two ranks
  CHECK(sources(owned, wanted, 1).empty());
  for (int from = 0; from < 4; ++from) {
    for (int to = 0; to < 4; ++to) {
      CHECK(std::ranges::count(targets(owned, wanted, from), to) ==
            std::ranges::count(sources(owned, wanted, to), from));
    }
  }
}

TEST_CASE("puts to one peer that follow each other are one extent") {
  const std::vector<Put> puts{
      {.peer = 1, .rows = 1, .row_bytes = 10, .offset = 0},
      {.peer = 2, .rows = 1, .row_bytes = 9, .offset = 0},
      {.peer = 1, .rows = 3, .row_bytes = 5, .offset = 10, .stride = 5},
      {.peer = 1, .rows = 0, .row_bytes = 5, .offset = 25},
      {.peer = 1, .rows = 2, .row_bytes = 5, .offset = 25, .stride = 8},
      {.peer = 1, .rows = 1, .row_bytes = 4, .offset = 38},
      {.peer = 1, .rows = 1, .row_bytes = 4, .offset = 43},
  };
  CHECK(extents_of(puts, 1) ==
        std::vector<Extent>{{0, 1, 25, 0}, {25, 2, 5, 8}, {38, 1, 4, 0}, {43, 1, 4, 0}});
  CHECK(extents_of(puts, 2) == std::vector<Extent>{{0, 1, 9, 0}});
  CHECK(extents_of(puts, 0).empty());
}

TEST_CASE("rows land at their place in each plane") {
  std::mt19937 random(5);
  for (int trial = 0; trial < 200; ++trial) {
    CAPTURE(trial);
    const int size = 1 + trial % 8;
    const std::int64_t total = 1 + static_cast<std::int64_t>(random() % 23);
    const std::int64_t planes = 1 + trial % 3;
    const std::int64_t row_bytes = 1 + trial % 5;
    const std::int64_t offset = trial % 7;
    const Ranges owned = cut(total, size, random);
    const Ranges wanted = trial % 2 == 0 ? with_halo(owned, 2, 1) : cut(total, size, random);
    const auto byte = [&](std::int64_t plane, std::int64_t row, std::int64_t i) {
      return mark((plane * total + row) * row_bytes + i, trial);
    };
    std::vector<std::vector<std::byte>> got(static_cast<std::size_t>(size));
    for (int rank = 0; rank < size; ++rank) {
      got[rank].resize(static_cast<std::size_t>(offset + planes * wanted[rank].count * row_bytes));
    }
    for (int rank = 0; rank < size; ++rank) {
      const std::int64_t stride = owned[rank].count * row_bytes + 3;  // a slab inside something wider
      std::vector<std::byte> slab(static_cast<std::size_t>(planes * stride));
      for (std::int64_t plane = 0; plane < planes; ++plane) {
        for (std::int64_t i = 0; i < owned[rank].count * row_bytes; ++i) {
          slab[plane * stride + i] = byte(plane, owned[rank].first + i / row_bytes, i % row_bytes);
        }
      }
      for (const Put& put : put_rows({slab.data(), planes, stride, row_bytes}, owned, wanted, rank, offset)) {
        for (std::int64_t row = 0; row < put.rows; ++row) {
          const std::int64_t at = put.offset + row * put.stride;
          REQUIRE(at + put.row_bytes <= static_cast<std::int64_t>(got[put.peer].size()));
          std::memcpy(got[put.peer].data() + at,
                      static_cast<const std::byte*>(put.source) + row * put.source_stride,
                      static_cast<std::size_t>(put.row_bytes));
        }
      }
    }
    for (int rank = 0; rank < size; ++rank) {
      std::vector<std::byte> expected(static_cast<std::size_t>(offset));
      for (std::int64_t plane = 0; plane < planes; ++plane) {
        for (std::int64_t row = wanted[rank].first; row < wanted[rank].end(); ++row) {
          for (std::int64_t i = 0; i < row_bytes; ++i) expected.push_back(byte(plane, row, i));
        }
      }
      REQUIRE(got[rank] == expected);
    }
  }
}
