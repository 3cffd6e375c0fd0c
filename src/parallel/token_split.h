#pragma once
#include <cstdint>
#include <vector>

#include "comm/rows.h"

namespace xdit::parallel {

using comm::Range;

/// The tokens of one forward: all text tokens or none, and those of some bands of the picture.
struct TokenPart {
  bool text = true;
  Range bands{0, 1};
};

/// Which tokens of one picture the ranks of a token group hold. Ranks are numbered gather or ring first,
/// Ulysses fastest. Ranges may be uneven or empty.
struct TokenSplit {
  std::int64_t ulysses = 1;               ///< ranks that divide the heads between them
  std::vector<Range> text;                ///< by rank
  std::vector<std::vector<Range>> image;  ///< by rank, its range of each band

  [[nodiscard]] std::int64_t ranks() const { return static_cast<std::int64_t>(text.size()); }
  [[nodiscard]] std::int64_t bands() const { return static_cast<std::int64_t>(image.front().size()); }
  [[nodiscard]] TokenPart whole() const { return {true, {0, bands()}}; }
  [[nodiscard]] std::int64_t text_tokens() const;
  [[nodiscard]] std::int64_t all_tokens() const;
  /// Global positions of a rank's tokens, text before image, in the order in which it holds them.
  [[nodiscard]] std::vector<Range> positions(std::int64_t rank, const TokenPart& part) const;
  [[nodiscard]] std::int64_t tokens(std::int64_t rank, const TokenPart& part) const;
  /// The first of the ranks that divide heads with `rank`.
  [[nodiscard]] std::int64_t first_neighbour(std::int64_t rank) const { return rank / ulysses * ulysses; }
};

}  // namespace xdit::parallel
