#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/special_tokens.h"
#include "text/tokenizer/tokenizer.h"

namespace xdit::text {

/// Ids of pieces by their text.
using PieceIds = std::unordered_map<std::string_view, std::int32_t>;

/// What the tokenizers share: added tokens, normalised text between them, a frame around the ids.
class PieceTokenizer : public Tokenizer {
 public:
  [[nodiscard]] std::vector<std::int64_t> ids(std::string_view utf8) const final;
  /// A length without room for the frame is an Error(kUsage).
  [[nodiscard]] TokenIds encode(std::string_view utf8, std::int64_t length) const final;
  [[nodiscard]] std::int64_t vocabulary_size() const final { return added_.vocabulary_size(); }

 protected:
  /// `pieces` by id. One that is there twice is an Error(kModel) at `where`.
  PieceTokenizer(std::vector<std::string> pieces, const std::string& where);
  /// To be called by the constructor. The frame: names of tokens, such as "eos_token"; padding is
  /// "pad_token".
  void add_tokens(const SpecialTokens& special, std::span<const char* const> before,
                  std::span<const char* const> after);

  [[nodiscard]] const std::vector<std::string>& pieces() const { return pieces_; }
  [[nodiscard]] const PieceIds& piece_ids() const { return piece_ids_; }
  /// How a token reads.
  [[nodiscard]] const std::string& text_of(std::int64_t id) const;

  [[nodiscard]] virtual std::string normalize(std::string_view text) const = 0;
  /// Appends the ids of normalised text.
  virtual void encode_text(std::string_view normalized, std::vector<std::int64_t>& ids) const = 0;
  /// As transformers' decode without clean_up_tokenization_spaces.
  [[nodiscard]] virtual std::string decode(std::span<const std::int64_t> ids) const = 0;

 private:
  std::vector<std::string> pieces_;
  PieceIds piece_ids_;
  AddedTokens added_;
  std::vector<std::int64_t> before_, after_;
  std::int64_t padding_ = 0;
};

}  // namespace xdit::text
