#include "comm/mesh.h"

#include "core/error.h"
#include "tests/catch.h"

using xdit::comm::Axis;
using xdit::comm::Coordinates;
using xdit::comm::Mesh;
using Ranks = std::vector<int>;

TEST_CASE("ranks count the mesh's points, tensor fastest") {
  const Mesh mesh({2, 2, 3, 2, 4, 2});
  REQUIRE(mesh.size() == 192);
  CHECK(mesh.degree(Axis::kPipefusion) == 3);
  CHECK(mesh.coordinates(0) == Coordinates{0, 0, 0, 0, 0, 0});
  CHECK(mesh.coordinates(1) == Coordinates{0, 0, 0, 0, 0, 1});
  CHECK(mesh.coordinates(2) == Coordinates{0, 0, 0, 0, 1, 0});
  CHECK(mesh.coordinates(191) == Coordinates{1, 1, 2, 1, 3, 1});
  for (int rank = 0; rank < mesh.size(); ++rank) {
    CAPTURE(rank);
    REQUIRE(mesh.rank(mesh.coordinates(rank)) == rank);
  }
}

TEST_CASE("members of a rank's group along axes") {
  const Mesh mesh({1, 2, 1, 2, 2, 1});
  CHECK(mesh.members(5, {Axis::kUlysses}) == Ranks{4, 5});
  CHECK(mesh.members(5, {Axis::kTokens}) == Ranks{5, 7});
  CHECK(mesh.members(5, {Axis::kCfg}) == Ranks{1, 5});
  CHECK(mesh.members(2, {Axis::kTokens, Axis::kUlysses}) == Ranks{0, 1, 2, 3});
  CHECK(mesh.members(3, {Axis::kTensor}) == Ranks{3});
  CHECK(mesh.members(3, {}) == Ranks{3});
}

TEST_CASE("the groups along an axis part the ranks") {
  const Mesh mesh({2, 1, 3, 2, 2, 2});
  for (const Axis axis : {Axis::kData, Axis::kPipefusion, Axis::kTokens, Axis::kUlysses, Axis::kTensor}) {
    for (int rank = 0; rank < mesh.size(); ++rank) {
      const Ranks group = mesh.members(rank, {axis});
      REQUIRE(static_cast<int>(group.size()) == mesh.degree(axis));
      for (const int other : group) REQUIRE(mesh.members(other, {axis}) == group);
    }
  }
}

TEST_CASE("a mesh refuses what is outside it") {
  CHECK_THROWS_AS(Mesh({1, 1, 0, 1, 1, 1}), xdit::Error);
  const Mesh mesh({1, 1, 1, 1, 2, 1});
  CHECK_THROWS_AS(mesh.coordinates(2), xdit::Error);
  CHECK_THROWS_AS(mesh.rank({0, 0, 0, 0, 2, 0}), xdit::Error);
}
