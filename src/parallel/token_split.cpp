#include "parallel/token_split.h"

namespace xdit::parallel {

std::int64_t TokenSplit::text_tokens() const {
  std::int64_t sum = 0;
  for (const Range& range : text) sum += range.count;
  return sum;
}

std::int64_t TokenSplit::all_tokens() const {
  std::int64_t sum = text_tokens();
  for (const std::vector<Range>& rank : image)
    for (const Range& range : rank) sum += range.count;
  return sum;
}

std::vector<Range> TokenSplit::positions(std::int64_t rank, const TokenPart& part) const {
  const auto at = static_cast<std::size_t>(rank);
  std::vector<Range> result;
  if (part.text) result.push_back(text.at(at));
  for (std::int64_t band = part.bands.first; band < part.bands.end(); ++band) {
    Range range = image.at(at).at(static_cast<std::size_t>(band));
    range.first += text_tokens();
    result.push_back(range);
  }
  return result;
}

std::int64_t TokenSplit::tokens(std::int64_t rank, const TokenPart& part) const {
  std::int64_t sum = 0;
  for (const Range& range : positions(rank, part)) sum += range.count;
  return sum;
}

}  // namespace xdit::parallel
