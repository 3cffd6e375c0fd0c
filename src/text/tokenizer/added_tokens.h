#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/prefix_trie.h"

namespace xdit::text {

/// A token that is found in the text before the model sees it.
struct AddedToken {
  std::string content;
  bool left_strip = false;   ///< takes the spaces before it
  bool right_strip = false;  ///< and after it
  bool normalized = false;   ///< is found, itself normalised, in normalised text; else in the text as it came
  bool operator==(const AddedToken&) const = default;
};

/// The added tokens of a tokenizer, as Hugging Face `tokenizers` keeps them.
class AddedTokens {
 public:
  struct Vocabulary {
    std::int64_t size;
    std::function<std::optional<std::int64_t>(std::string_view piece)> id_of;
    std::function<std::string(std::string_view text)> normalize;
  };
  AddedTokens() = default;
  /// A token has the id of the piece with its content, else the next free one; of tokens with one id the last
  /// counts.
  AddedTokens(const std::vector<AddedToken>& tokens, const Vocabulary& vocabulary);

  /// A stretch of text (id < 0) or a token.
  struct Part {
    std::string_view text;
    std::int64_t id = -1;
  };
  /// Cuts `text` at the leftmost and there longest tokens: those that are found in normalised text, or the
  /// others.
  [[nodiscard]] std::vector<Part> split(std::string_view text, bool normalized) const;

  [[nodiscard]] std::optional<std::int64_t> id_of(const std::string& content) const;
  /// How the token reads, or nullptr when no added token has this id.
  [[nodiscard]] const std::string* text_of(std::int64_t id) const;
  [[nodiscard]] std::int64_t vocabulary_size() const { return size_; }  ///< added tokens included

 private:
  struct Entry {
    std::string text;  // as it is found
    bool left_strip, right_strip, normalized;
  };
  std::int64_t size_ = 0;
  std::map<std::string, std::int64_t> ids_;
  std::map<std::int64_t, Entry> entries_;
  PrefixTrie raw_, normalized_;  // the text of each entry -> its id
};

}  // namespace xdit::text
