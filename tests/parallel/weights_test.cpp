// What ranks hold and read of a model's weights.
#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "core/error.h"
#include "parallel/plan_parameters.h"
#include "parallel/plan_weights.h"
#include "tests/catch.h"

namespace xdit::parallel {
namespace {

const std::string kFlux = std::string(XDIT_TEST_DATA) + "/flux/";

const models::Model& tiny() {  // 3 heads; files of one dtype
  static const models::Model model = models::open(kFlux + "tiny-dev", {}, {}, false);
  return model;
}

Plan plan_of(const config::RunSpec::Parallel& parallel, std::int64_t ranks, std::int64_t pictures = 1) {
  config::RunSpec spec;
  spec.prompts = {"x"};
  spec.sampling.seeds = {0};
  spec.sampling.max_sequence_length = 13;
  spec.image.count = pictures;
  spec.image.height = 5 * tiny().shape.pixels_per_token;
  spec.image.width = 7 * tiny().shape.pixels_per_token;
  spec.parallel = parallel;
  spec.parallel.gpus = std::to_string(ranks);
  spec.runtime.device = config::Device::kCpu;
  return make_plan(spec, tiny(), {.gpus = {}, .host_memory = std::uint64_t{1} << 40U, .cores = 1});
}

using Bytes = std::multiset<std::pair<std::int32_t, std::uint64_t>>;

// Every byte of the transformer's files that the ranks read, as often as they do.
Bytes bytes_read(const Plan& plan) {
  const models::Network& network = denoiser_of(tiny());
  std::map<std::string, const weights::Placed*> placed;
  for (const weights::Placed& one : network.placed) placed[one.name] = &one;
  Bytes bytes;
  for (const RankPlan& rank : plan.ranks) {
    if (!rank.readers.contains("transformer")) continue;
    const std::vector<Range> ranges = reads_of(plan, rank, network);
    for (const HeldParameter& held : held_by(plan, rank, network))
      for (const Range& range : ranges) {
        const Range part = comm::overlap(range, {held.offset, held.elements()});
        for (const weights::Piece& piece :
             pieces_of(held, *placed.at(held.name), {part.first - held.offset, part.count}))
          for (std::uint64_t i = 0; i < piece.bytes; ++i) bytes.emplace(piece.file, piece.offset + i);
      }
  }
  return bytes;
}

TEST_CASE("what ranks hold together is read once") {
  const Bytes once = bytes_read(plan_of({}, 1));
  std::uint64_t all = 0;
  for (const weights::Placed& placed : denoiser_of(tiny()).placed)
    for (const weights::Piece& piece : placed.pieces) all += piece.bytes;
  CHECK(once.size() == all);
  CHECK((bytes_read(plan_of({.gather = 3}, 3)) == once));
  CHECK((bytes_read(plan_of({.data = 2}, 2, 2)) == once));
  CHECK((bytes_read(plan_of({.gather = 3, .shard_weights = "true"}, 3)) == once));
  CHECK((bytes_read(plan_of({.gather = 4, .shard_weights = "true"}, 4)) == once));
  CHECK((bytes_read(plan_of({.data = 2}, 2, 1)) == once));  // one rank is idle
}

TEST_CASE("of a matrix that is used in pieces a rank stores its share, and only ranks that shard share it") {
  const models::Network& network = denoiser_of(tiny());
  const auto stored = [&](const Plan& plan, const RankPlan& rank, bool outside) {
    const std::vector<HeldParameter> held = held_by(plan, rank, network);
    const auto matrix = std::find_if(
        held.begin(), held.end(), [](const HeldParameter& one) { return one.name == "modulation.weight"; });
    const Storage storage = storage_of(plan, rank, network);
    std::vector<Range> ranges;  // of the matrix's elements
    for (const Range& range : outside ? storage.outside : storage.blocks) {
      const Range part = comm::overlap(range, {matrix->offset, matrix->elements()});
      if (part.count > 0) ranges.push_back({part.first - matrix->offset, part.count});
    }
    return std::pair{ranges, matrix->elements()};
  };
  const Plan alone = plan_of({}, 1);
  const auto [whole, all] = stored(alone, alone.ranks[0], true);
  CHECK(whole == std::vector<Range>{{0, all}});
  using P = config::RunSpec::Parallel;
  for (const auto& [parallel, ranks, pictures] : {std::tuple{P{.gather = 2}, 2, 1},
                                                  {P{.gather = 3}, 3, 1},
                                                  {P{.ulysses = 3}, 3, 1},
                                                  {P{.gather = 5}, 5, 1},
                                                  {P{.data = 2}, 2, 2},
                                                  {P{.data = 2}, 2, 1},
                                                  {P{.data = 2, .gather = 3}, 6, 3},
                                                  {P{.pipefusion = 2, .gather = 2}, 4, 1}}) {
    CAPTURE(ranks, pictures);
    P sharded = parallel;
    sharded.shard_weights = "true";
    const Plan plan = plan_of(sharded, ranks, pictures);
    REQUIRE(plan.shard > 1);
    std::map<std::vector<int>, std::vector<Range>> shares;  // by the ranks that shard
    std::map<std::vector<int>, std::int64_t> elements;
    for (const RankPlan& rank : plan.ranks) {
      CHECK(stored(plan, rank, true).first.empty());
      const auto [mine, of] = stored(plan, rank, false);
      CHECK(elements_of(mine) <= of / plan.shard + std::ssize(mine));  // an element a piece, at most, more
      std::vector<Range>& joined = shares[rank.sharding];
      joined.insert(joined.end(), mine.begin(), mine.end());
      elements[rank.sharding] = of;
    }
    for (auto& [group, ranges] : shares) {
      CHECK(std::ssize(group) == plan.shard);
      std::sort(ranges.begin(), ranges.end(), [](Range a, Range b) { return a.first < b.first; });
      std::int64_t next = 0;
      for (const Range& range : ranges) {
        CHECK(range.first == next);
        next = range.end();
      }
      CHECK(next == elements.at(group));
    }
  }
}

TEST_CASE("ranks that hold different parts read their own, and what is whole in each of them again") {
  const Bytes once = bytes_read(plan_of({}, 1));
  for (const config::RunSpec::Parallel& parallel :
       {config::RunSpec::Parallel{.pipefusion = 3}, config::RunSpec::Parallel{.tensor = 3}}) {
    const Bytes thrice = bytes_read(plan_of(parallel, 3));
    CHECK((std::set(thrice.begin(), thrice.end()) == std::set(once.begin(), once.end())));
    CHECK(thrice.size() >= once.size());
    CHECK(thrice.size() < 2 * once.size());
  }
}

TEST_CASE("pieces put every element in its place") {
  const models::Network& network = denoiser_of(tiny());
  for (const std::int64_t tensor : {1, 3})
    for (std::int64_t rank = 0; rank < tensor; ++rank)
      for (const HeldParameter& held : held_parameters(network, kAllBlocks, tensor, rank)) {
        const auto placed = std::find_if(network.placed.begin(), network.placed.end(),
                                         [&](const weights::Placed& one) { return one.name == held.name; });
        std::vector<bool> there(static_cast<std::size_t>(held.elements()));
        for (const weights::Piece& piece : pieces_of(held, *placed, {0, held.elements()}))
          for (std::int64_t i = 0; i < piece.elements; ++i) {
            const auto at = static_cast<std::size_t>(piece.first_element + i);
            CHECK_FALSE(there.at(at));
            there.at(at) = true;
          }
        CHECK(std::count(there.begin(), there.end(), false) == 0);
        CHECK(held.offset % 128 == 0);
      }
}

TEST_CASE("shares are in proportion and leave no hole") {
  const std::vector<Range> ranges{{10, 5}, {20, 7}, {40, 0}, {50, 9}};
  for (const std::vector<std::int64_t>& shares :
       {std::vector<std::int64_t>{1}, {1, 1, 1}, {0, 5, 2}, {0, 0, 1}, {3, 0, 0, 1, 9}}) {
    std::vector<Range> joined;
    for (std::size_t i = 0; i < shares.size(); ++i)
      for (const Range& part : shared_out(ranges, shares, i)) {
        CHECK(part.count > 0);
        if (!joined.empty() && joined.back().end() == part.first)
          joined.back().count += part.count;
        else
          joined.push_back(part);
      }
    CHECK(joined == std::vector<Range>{{10, 5}, {20, 7}, {50, 9}});
  }
  CHECK(shared_out(ranges, {0, 1}, 0).empty());
}

TEST_CASE("stages cost alike, and none is empty") {
  const models::Model flux = models::open("FLUX.1-dev", {}, {}, true);
  const std::vector<std::int64_t> costs = block_costs(flux);
  CHECK(costs[0] > 2 * costs[56]);
  const Machine machine{.gpus = {}, .host_memory = std::uint64_t{1} << 40U, .cores = 1};
  for (const std::int64_t stages : {2, 3, 4, 8, 57}) {
    config::RunSpec spec;
    spec.prompts = {"x"};
    spec.sampling.seeds = {0};
    spec.parallel.gpus = std::to_string(stages);
    spec.parallel.pipefusion = stages;
    spec.runtime.device = config::Device::kCpu;
    const Plan plan = make_plan(spec, flux, machine);
    std::int64_t next = 0;
    std::int64_t dearest = 0;
    for (const RankPlan& rank : plan.ranks) {
      CHECK(rank.blocks.first == next);
      CHECK(rank.blocks.count >= 1);
      next = rank.blocks.end();
      dearest = std::max(dearest, std::accumulate(costs.begin() + rank.blocks.first,
                                                  costs.begin() + rank.blocks.end(), std::int64_t{0}));
      CHECK(rank.image_tokens.size() == static_cast<std::size_t>(stages));
    }
    CHECK(next == 57);
    const std::int64_t fair = std::reduce(costs.begin(), costs.end()) / stages;
    CHECK(dearest <= fair + costs[0]);
  }
}

TEST_CASE("weights are spread when they fit no other way, or when that is asked for") {
  const models::Model flux = models::open("FLUX.1-dev", {}, {}, true);
  config::RunSpec spec;
  spec.prompts = {"x"};
  spec.sampling.seeds = {0};
  spec.parallel.gpus = "4";
  const auto shard_on = [&](std::uint64_t gigabytes) {
    const Machine machine{
        .gpus = std::vector<Gpu>(4, {.name = "G", .uuid = "", .memory = gigabytes * 1'000'000'000}),
        .host_memory = std::uint64_t{1} << 40U,
        .cores = 8};
    return make_plan(spec, flux, machine).shard;
  };
  CHECK(shard_on(80) == 1);
  CHECK(shard_on(24) == 2);
  CHECK(shard_on(16) == 2);
  CHECK(shard_on(14) == 4);
  CHECK_THROWS_AS(shard_on(8), Error);
  spec.parallel.shard_weights = "true";
  CHECK(shard_on(80) == 2);
  spec.parallel.shard_weights = "false";
  CHECK_THROWS_AS(shard_on(24), Error);
}

}  // namespace
}  // namespace xdit::parallel
