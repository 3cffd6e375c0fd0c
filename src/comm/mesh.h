#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace xdit::comm {

/// Dimensions of the mesh of ranks, slowest first. kTokens is ring or gather.
enum class Axis : std::uint8_t { kData, kCfg, kPipefusion, kTokens, kUlysses, kTensor };
inline constexpr std::size_t kAxes = 6;

/// A value for each Axis.
using Coordinates = std::array<int, kAxes>;

/// rank <-> coordinates.
class Mesh {
 public:
  explicit Mesh(const Coordinates& degrees);  ///< all >= 1

  [[nodiscard]] int size() const;
  [[nodiscard]] int degree(Axis axis) const { return degrees_[static_cast<std::size_t>(axis)]; }
  [[nodiscard]] Coordinates coordinates(int rank) const;
  [[nodiscard]] int rank(const Coordinates& coordinates) const;
  /// The ranks whose coordinates differ from those of `rank` along `axes` only, ascending. The first of them
  /// is a colour for Group::split.
  [[nodiscard]] std::vector<int> members(int rank, std::initializer_list<Axis> axes) const;

 private:
  Coordinates degrees_;
};

}  // namespace xdit::comm
