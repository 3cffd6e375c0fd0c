#include "cli/batch_places.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>

namespace xdit::cli {

std::string mark_of(const config::BatchLine& line) {
  std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  const auto add = [&](std::string_view text) {
    for (const unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3U;
    hash *= 0x100000001b3U;  // a zero byte: no text holds one
  };
  for (const config::Setting& setting : line.settings) {
    add(setting.key);
    for (const std::string& value : setting.values) add(value);
  }
  if (line.fault) add(line.fault->message());
  return fmt::format("{:016x}", hash);
}

namespace {

constexpr std::size_t kTooOften = 64;  // for a mark to tell which line is which

// Lines [head, lines - tail) that are still there, in the same order: by line, their places. The longest
// common subsequence (Hunt, Szymanski 1977).
std::map<std::size_t, std::size_t> kept(const std::vector<std::string>& marks,
                                        const std::vector<std::string>& known, std::size_t head,
                                        std::size_t tail) {
  struct Pair {
    std::size_t line, place;
    std::optional<std::size_t> before;  // in the chain that it ends
  };
  std::map<std::string_view, std::vector<std::size_t>> places;
  for (std::size_t place = known.size() - tail; place-- > head;) places[known[place]].push_back(place);
  std::vector<Pair> pairs;
  std::vector<std::size_t> ends;  // of chains of 1, 2, ... pairs, those that end first
  for (std::size_t line = head; line < marks.size() - tail; ++line) {
    const auto found = places.find(marks[line]);
    if (found == places.end() || found->second.size() > kTooOften) continue;
    for (const std::size_t place : found->second) {
      const auto end =
          std::lower_bound(ends.begin(), ends.end(), place,
                           [&](std::size_t pair, std::size_t at) { return pairs[pair].place < at; });
      pairs.push_back({line, place, end == ends.begin() ? std::nullopt : std::optional(end[-1])});
      if (end == ends.end())
        ends.push_back(pairs.size() - 1);
      else
        *end = pairs.size() - 1;
    }
  }
  std::map<std::size_t, std::size_t> all;
  std::optional<std::size_t> last;
  if (!ends.empty()) last = ends.back();
  for (; last; last = pairs[*last].before) all.emplace(pairs[*last].line, pairs[*last].place);
  return all;
}

}  // namespace

std::vector<std::size_t> places_of(const std::vector<std::string>& marks,
                                   const std::vector<std::string>& known, const std::vector<bool>& made) {
  const std::size_t shorter = std::min(marks.size(), known.size());
  std::size_t head = 0, tail = 0;
  while (head < shorter && marks[head] == known[head]) ++head;
  while (tail < shorter - head && marks[marks.size() - 1 - tail] == known[known.size() - 1 - tail]) ++tail;
  std::map<std::size_t, std::size_t> stay = kept(marks, known, head, tail);
  for (std::size_t i = 0; i < tail; ++i) stay.emplace(marks.size() - 1 - i, known.size() - 1 - i);

  std::vector<std::size_t> places(marks.size());
  std::size_t behind = known.size();
  std::size_t free = 0;  // before this, no place is
  for (std::size_t line = 0; line < marks.size(); ++line) {
    const auto next = stay.lower_bound(line);
    if (line < head) {
      places[line] = line;
    } else if (next != stay.end() && next->first == line) {
      places[line] = next->second;
    } else {
      const std::size_t end = next == stay.end() ? known.size() : next->second;
      while (free < end && made[free]) ++free;
      places[line] = free < end ? free : behind++;
    }
    if (places[line] < known.size()) free = places[line] + 1;
  }
  return places;
}

}  // namespace xdit::cli
