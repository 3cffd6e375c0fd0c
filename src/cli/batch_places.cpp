#include "cli/batch_places.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string_view>
#include <utility>

namespace xdit::cli {

using Place = output::Manifest::Place;

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

std::vector<std::size_t> places_of(const std::vector<Place>& lines, const std::vector<Place>& known,
                                   const std::vector<bool>& made) {
  constexpr std::size_t kNone = -1;
  const std::size_t shorter = std::min(lines.size(), known.size());
  std::size_t head = 0, tail = 0;
  while (head < shorter && lines[head] == known[head]) ++head;
  while (tail < shorter - head && lines[lines.size() - 1 - tail] == known[known.size() - 1 - tail]) ++tail;

  std::map<std::pair<std::string_view, std::int64_t>, std::set<std::size_t>> waiting;
  for (std::size_t place = head; place < known.size() - tail; ++place)
    waiting[{known[place].mark, known[place].pictures}].insert(place);
  std::vector<std::size_t> places(lines.size(), kNone);
  std::vector<bool> stays(known.size());
  std::size_t next = 0;  // the place behind the last line's
  for (std::size_t line = 0; line < lines.size(); ++line) {
    if (line < head) {
      places[line] = line;
    } else if (line >= lines.size() - tail) {
      places[line] = line + known.size() - lines.size();
    } else if (std::set<std::size_t>& alike = waiting[{lines[line].mark, lines[line].pictures}];
               !alike.empty()) {
      auto found = alike.lower_bound(next);
      if (found == alike.end()) found = alike.begin();  // the line has moved
      places[line] = *found;
      alike.erase(found);
    }
    if (places[line] == kNone) continue;
    stays[places[line]] = true;
    next = places[line] + 1;
  }

  std::size_t behind = known.size();
  next = 0;
  for (std::size_t line = 0; line < lines.size(); ++line) {
    const auto is_free = [&] { return next < known.size() && !stays[next]; };
    if (places[line] == kNone) {
      while (is_free() && made[next]) ++next;
      const bool fits = is_free() && known[next].pictures == lines[line].pictures;
      places[line] = fits ? next : behind++;
    }
    if (places[line] < known.size()) next = places[line] + 1;
  }
  return places;
}

}  // namespace xdit::cli
