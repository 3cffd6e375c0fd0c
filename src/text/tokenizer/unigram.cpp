#include "text/tokenizer/unigram.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "text/tokenizer/unicode.h"

namespace xdit::text {

namespace {

PrefixTrie trie_of(std::span<const std::string> pieces) {
  std::vector<PrefixTrie::Entry> entries;
  entries.reserve(pieces.size());
  for (const std::string& piece : pieces)
    entries.push_back({piece, static_cast<std::int32_t>(entries.size())});
  return PrefixTrie(std::move(entries));
}

}  // namespace

Unigram::Unigram(std::span<const std::string> pieces, std::vector<double> scores, std::int32_t unknown)
    : unknown_(unknown), scores_(std::move(scores)), trie_(trie_of(pieces)) {
  constexpr double kUnknownPenalty = 10.0;
  unknown_score_ = std::ranges::min(scores_) - kUnknownPenalty;
}

std::int32_t Unigram::id_of(std::string_view text) const {
  std::int32_t id = unknown_;
  trie_.for_each_prefix(text, [&](std::size_t length, std::int32_t value) {
    if (length == text.size()) id = value;
  });
  return id;
}

void Unigram::encode(std::string_view text, std::vector<std::int64_t>& ids) const {
  struct Best {  // the best path to a byte
    double score = 0;
    std::ptrdiff_t begin = -1;  // of its last piece; -1: no path yet
    std::int32_t id = 0;
  };
  std::vector<Best> best(text.size() + 1);
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t next = begin;
    static_cast<void>(next_code_point(text, next));
    const auto offer = [&](std::size_t end, std::int32_t id, double score) {
      Best& target = best[end];
      const double total = score + best[begin].score;
      if (target.begin < 0 || total > target.score) target = {total, static_cast<std::ptrdiff_t>(begin), id};
    };
    bool known = false;  // whether the code point is a piece
    trie_.for_each_prefix(text.substr(begin), [&](std::size_t length, std::int32_t id) {
      offer(begin + length, id, scores_[static_cast<std::size_t>(id)]);
      known = known || begin + length == next;
    });
    if (!known) offer(next, unknown_, unknown_score_);
    begin = next;
  }

  const auto first = static_cast<std::ptrdiff_t>(ids.size());
  std::size_t unknown_end = 0;  // end of the unknown run that is being gathered, backwards; 0: none
  const auto close_run = [&](std::size_t begin) {
    if (unknown_end > 0) ids.push_back(id_of(text.substr(begin, unknown_end - begin)));
    unknown_end = 0;
  };
  for (std::size_t end = text.size(); end > 0; end = static_cast<std::size_t>(best[end].begin)) {
    if (best[end].id == unknown_) {
      if (unknown_end == 0) unknown_end = end;
    } else {
      close_run(end);
      ids.push_back(best[end].id);
    }
  }
  close_run(0);
  std::reverse(ids.begin() + first, ids.end());
}

}  // namespace xdit::text
