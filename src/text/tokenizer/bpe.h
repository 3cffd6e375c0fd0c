#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/tokenizer/piece_tokenizer.h"

namespace xdit::text {

/// CLIP's byte-level byte-pair encoding (Sennrich et al., arXiv:1508.07909): every byte of a word is a
/// letter, the last one with "</w>"; pairs merge in the order of the merges.
class Bpe {
 public:
  using Merge = std::pair<std::string, std::string>;
  /// `unknown` is the piece of bytes that have none. A piece that does not exist is an Error(kModel) at
  /// `where`.
  Bpe(const PieceIds& pieces, const std::vector<Merge>& merges, const std::string& unknown,
      const std::string& where);

  /// Appends the ids of one word. O(n log n).
  void encode(std::string_view word, std::vector<std::int64_t>& ids) const;

  /// The bytes that a piece's letters stand for, "</w>" among them; the piece itself when one is no letter.
  [[nodiscard]] static std::string bytes_of(std::string_view piece);

 private:
  struct Rule {
    std::uint32_t order;
    std::int32_t merged;
  };
  [[nodiscard]] const Rule* rule(std::int32_t left, std::int32_t right) const;

  std::array<std::int32_t, 256> letters_{};       // id of each byte
  std::array<std::int32_t, 256> last_letters_{};  // and as the end of a word
  std::unordered_map<std::uint64_t, Rule> rules_;
};

}  // namespace xdit::text
