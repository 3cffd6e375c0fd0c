#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/prefix_trie.h"

namespace xdit::text {

/// Unigram language model (Kudo, arXiv:1804.10959) as Hugging Face `tokenizers` decodes it: Viterbi in double
/// precision, an unknown code point costs 10 more than the rarest piece, neighbouring unknown ones are one
/// token.
class Unigram {
 public:
  /// By id: pieces (not empty) and their scores (log probabilities). `unknown` is the id of <unk>.
  Unigram(std::span<const std::string> pieces, std::vector<double> scores, std::int32_t unknown);

  /// Appends the ids of `text` (valid UTF-8). Time grows with its length times the longest piece.
  void encode(std::string_view text, std::vector<std::int64_t>& ids) const;

 private:
  [[nodiscard]] std::int32_t id_of(std::string_view text) const;  // <unk>'s where it is no piece

  std::int32_t unknown_;
  double unknown_score_;
  std::vector<double> scores_;
  PrefixTrie trie_;
};

}  // namespace xdit::text
