#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace xdit::text {

/// What a tokenizer needs of a sentencepiece model (sentencepiece_model.proto).
struct SentencePieceModel {
  struct Piece {
    std::string text;
    double score = 0;
    std::uint64_t type = 1;
  };
  static constexpr std::uint64_t kControl = 3;      ///< a Piece::type
  static constexpr std::uint64_t kUserDefined = 4;  ///< a Piece::type
  static constexpr std::uint64_t kUnigram = 1;      ///< a model_type

  std::vector<Piece> pieces;  ///< by id
  std::string charsmap;       ///< precompiled normaliser, or ""
  std::uint64_t model_type = kUnigram;
  std::uint64_t unknown = 0;  ///< id of <unk>
};

/// Parses the protocol buffer `bytes`. Faults are Error(kModel) at `where`.
[[nodiscard]] SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& where);

}  // namespace xdit::text
