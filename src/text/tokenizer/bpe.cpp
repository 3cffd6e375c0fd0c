#include "text/tokenizer/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <tuple>

#include "core/error.h"
#include "text/tokenizer/unicode.h"

namespace xdit::text {

namespace {

constexpr std::string_view kEndOfWord = "</w>";

// The letter of a byte: itself where it prints in Latin-1, else the next free one from U+0100 (GPT-2's
// table).
constexpr std::array<char32_t, 256> kByteLetters = [] {
  std::array<char32_t, 256> letters{};
  char32_t free = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool prints = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    letters[byte] = prints ? byte : free++;
  }
  return letters;
}();

std::uint64_t key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32U |
         static_cast<std::uint32_t>(right);
}

}  // namespace

Bpe::Bpe(const PieceIds& pieces, const std::vector<Merge>& merges, const std::string& unknown,
         const std::string& where) {
  const auto unknown_at = pieces.find(unknown);
  if (unknown_at == pieces.end())
    throw Error(ExitCode::kModel, fmt::format("the vocabulary has no \"{}\", its unknown token", unknown),
                where);
  const auto letter_id = [&](const std::string& letter) {
    const auto at = pieces.find(letter);
    return at == pieces.end() ? unknown_at->second : at->second;
  };
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string letter;
    append_utf8(letter, kByteLetters[byte]);
    letters_[byte] = letter_id(letter);
    last_letters_[byte] = letter_id(letter.append(kEndOfWord));
  }
  rules_.reserve(merges.size());
  for (std::uint32_t order = 0; order < merges.size(); ++order) {
    const Merge& merge = merges[order];
    const auto id = [&](const std::string& piece) {
      const auto at = pieces.find(piece);
      if (at == pieces.end())
        throw Error(ExitCode::kModel,
                    fmt::format("the vocabulary has no \"{}\" for merge {}, \"{} {}\"", piece, order + 1,
                                merge.first, merge.second),
                    where);
      return at->second;
    };
    const std::int32_t left = id(merge.first);
    const std::int32_t right = id(merge.second);
    rules_[key(left, right)] = {order, id(merge.first + merge.second)};
  }
}

const Bpe::Rule* Bpe::rule(std::int32_t left, std::int32_t right) const {
  const auto at = rules_.find(key(left, right));
  return at == rules_.end() ? nullptr : &at->second;
}

void Bpe::encode(std::string_view word, std::vector<std::int64_t>& ids) const {
  struct Symbol {
    std::int32_t id;
    std::int32_t previous, next;  // -1: none
    bool merged_away = false;
  };
  struct Candidate {
    std::uint32_t order;
    std::int32_t left, merged;
    bool operator>(const Candidate& other) const {
      return std::tie(order, left) > std::tie(other.order, other.left);
    }
  };
  const auto size = static_cast<std::int32_t>(word.size());
  std::vector<Symbol> symbols(word.size());
  for (std::int32_t i = 0; i < size; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<std::size_t>(i)]);
    symbols[static_cast<std::size_t>(i)] = {i + 1 < size ? letters_[byte] : last_letters_[byte], i - 1,
                                            i + 1 < size ? i + 1 : -1};
  }
  const auto symbol = [&](std::int32_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };

  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](std::int32_t left) {
    if (left < 0 || symbol(left).next < 0) return;
    if (const Rule* found = rule(symbol(left).id, symbol(symbol(left).next).id))
      queue.push({found->order, left, found->merged});
  };
  for (std::int32_t i = 0; i < size; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbol(best.left);
    if (left.merged_away || left.next < 0) continue;
    Symbol& right = symbol(left.next);
    const Rule* found = rule(left.id, right.id);
    if (found == nullptr || found->merged != best.merged) continue;  // the pair has changed since
    left.id = best.merged;
    left.next = right.next;
    right.merged_away = true;
    if (left.next >= 0) symbol(left.next).previous = best.left;
    offer(left.previous);
    offer(best.left);
  }
  for (const Symbol& s : symbols)
    if (!s.merged_away) ids.push_back(s.id);
}

std::string Bpe::bytes_of(std::string_view piece) {
  std::string bytes;
  for (std::size_t at = 0; at < piece.size();) {
    const auto letter = std::ranges::find(kByteLetters, next_code_point(piece, at));
    if (letter == kByteLetters.end()) return std::string(piece);
    bytes += static_cast<char>(letter - kByteLetters.begin());
  }
  return bytes;
}

}  // namespace xdit::text
