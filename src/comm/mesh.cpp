#include "comm/mesh.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/error.h"

namespace xdit::comm {

Mesh::Mesh(const Coordinates& degrees) : degrees_(degrees) {
  XDIT_ASSERT(std::all_of(degrees.begin(), degrees.end(), [](int degree) { return degree >= 1; }));
}

int Mesh::size() const {
  return std::accumulate(degrees_.begin(), degrees_.end(), 1, std::multiplies<>());
}

Coordinates Mesh::coordinates(int rank) const {
  XDIT_ASSERT(rank >= 0 && rank < size());
  Coordinates result{};
  for (std::size_t axis = kAxes; axis-- > 0;) {
    result[axis] = rank % degrees_[axis];
    rank /= degrees_[axis];
  }
  return result;
}

int Mesh::rank(const Coordinates& coordinates) const {
  int result = 0;
  for (std::size_t axis = 0; axis < kAxes; ++axis) {
    XDIT_ASSERT(coordinates[axis] >= 0 && coordinates[axis] < degrees_[axis]);
    result = result * degrees_[axis] + coordinates[axis];
  }
  return result;
}

std::vector<int> Mesh::members(int rank, std::initializer_list<Axis> axes) const {
  const Coordinates mine = coordinates(rank);
  std::vector<int> result;
  for (int other = 0; other < size(); ++other) {
    Coordinates theirs = coordinates(other);
    for (const Axis axis : axes)
      theirs[static_cast<std::size_t>(axis)] = mine[static_cast<std::size_t>(axis)];
    if (theirs == mine) result.push_back(other);
  }
  return result;
}

}  // namespace xdit::comm
