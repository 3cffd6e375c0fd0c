#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "text/tokenizer/charsmap.h"
#include "text/tokenizer/files.h"
#include "text/tokenizer/piece_tokenizer.h"
#include "text/tokenizer/special_tokens.h"
#include "text/tokenizer/spiece.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/unicode.h"
#include "text/tokenizer/unigram.h"

namespace xdit::text {
namespace fs = std::filesystem;

namespace {

constexpr std::int32_t kUnknown = 2;  // transformers' T5Tokenizer has it so whatever the file says
constexpr std::string_view kMetaspace = "▁";

struct T5Vocabulary {
  std::vector<std::string> pieces;  // by id
  std::vector<double> scores;
  Charsmap charsmap;
  std::string where;
};

std::string decode_base64(std::string_view text, const std::string& where) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto refuse = [&] {
    throw Error(ExitCode::kModel, "the precompiled normaliser is not base64", where);
  };
  if (text.size() % 4 != 0) refuse();
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    const std::size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) refuse();
    bits = bits << 6U | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xFFU);
  }
  return bytes;
}

// The first precompiled normaliser of a tokenizer.json; transformers 5 takes nothing else from "normalizer".
Charsmap find_charsmap(const Json& document, const std::string& where) {
  const auto is_type = [](const Json& value, const char* name) {
    const Json* type = find_member(value, "type");
    return type != nullptr && *type == name;
  };
  const Json* normalizer = find_member(document, "normalizer");
  if (normalizer == nullptr) return {};
  const Json* list = is_type(*normalizer, "Sequence") ? find_member(*normalizer, "normalizers") : nullptr;
  const Json one = list == nullptr ? Json::array({*normalizer}) : Json();
  for (const Json& item : list == nullptr ? one : *list) {
    if (!is_type(item, "Precompiled")) continue;
    const Json* blob = find_member(item, "precompiled_charsmap");
    if (blob == nullptr || !blob->is_string())
      throw Error(ExitCode::kModel, "expected \"precompiled_charsmap\" as text", where);
    return {decode_base64(blob->get_ref<const std::string&>(), where), where};
  }
  return {};
}

T5Vocabulary parse_t5_document(const Json& document, const std::string& file) {
  const Json* model = find_member(document, "model");
  const Json* type = model != nullptr ? find_member(*model, "type") : nullptr;
  const Json* pieces = model != nullptr ? find_member(*model, "vocab") : nullptr;
  const Json* unknown = model != nullptr ? find_member(*model, "unk_id") : nullptr;
  if (pieces == nullptr || !pieces->is_array() || (type != nullptr && *type != "Unigram"))
    throw Error(ExitCode::kModel,
                "expected a \"model\" of type Unigram with \"vocab\": [[\"piece\", score], ...]", file);
  if (unknown != nullptr && *unknown != kUnknown)
    throw Error(ExitCode::kModel, fmt::format("unk_id is not {}, as it is in T5", kUnknown), file);
  T5Vocabulary vocabulary{{}, {}, find_charsmap(document, file + ": normalizer"), file};
  for (const Json& piece : *pieces) {
    const bool is_pair =
        piece.is_array() && piece.size() == 2 && piece[0].is_string() && piece[1].is_number();
    if (!is_pair || piece[0].get_ref<const std::string&>().empty() || !std::isfinite(piece[1].get<double>()))
      throw Error(ExitCode::kModel, "expected [\"piece\", score]",
                  fmt::format("{}: model.vocab[{}]", file, vocabulary.pieces.size()));
    vocabulary.pieces.push_back(piece[0]);
    vocabulary.scores.push_back(piece[1]);
  }
  return vocabulary;
}

// Refuses a vocabulary without room for <unk>.
T5Vocabulary checked(T5Vocabulary vocabulary) {
  if (vocabulary.pieces.size() <= kUnknown)
    throw Error(ExitCode::kModel, fmt::format("{} pieces, <unk> is not among them", vocabulary.pieces.size()),
                vocabulary.where);
  return vocabulary;
}

class T5Tokenizer final : public PieceTokenizer {
 public:
  T5Tokenizer(T5Vocabulary vocabulary, const SpecialTokens& special)
      : PieceTokenizer(std::move(vocabulary.pieces), vocabulary.where),
        charsmap_(std::move(vocabulary.charsmap)),
        unigram_(pieces(), std::move(vocabulary.scores), kUnknown) {
    static constexpr std::array kAfter = {"eos_token"};
    add_tokens(special, {}, kAfter);
  }

 protected:
  [[nodiscard]] std::string normalize(std::string_view text) const override {
    return charsmap_.normalize(text);
  }

  // Words between spaces, each with "▁" before it, and every further "▁" begins another.
  void encode_text(std::string_view text, std::vector<std::int64_t>& ids) const override {
    const auto encode_word = [&](std::string_view chunk) {
      if (chunk.empty()) return;
      std::string word(chunk.starts_with(kMetaspace) ? "" : kMetaspace);
      word += chunk;
      for (std::size_t begin = 0; begin < word.size();) {
        const std::size_t end = std::min(word.find(kMetaspace, begin + 1), word.size());
        unigram_.encode(std::string_view(word).substr(begin, end - begin), ids);
        begin = end;
      }
    };
    std::size_t word = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t begin = at;
      if (!is_space(next_code_point(text, at))) continue;
      encode_word(text.substr(word, begin - word));
      word = at;
    }
    encode_word(text.substr(word));
  }

  [[nodiscard]] std::string decode(std::span<const std::int64_t> ids) const override {
    std::string text;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      std::string piece = text_of(ids[i]);
      for (std::size_t at = piece.find(kMetaspace); at != std::string::npos; at = piece.find(kMetaspace, at))
        piece.replace(at, kMetaspace.size(), i == 0 ? "" : " ");
      text += piece;
    }
    return text;
  }

 private:
  Charsmap charsmap_;
  Unigram unigram_;
};

}  // namespace

std::unique_ptr<Tokenizer> open_t5_tokenizer(const fs::path& folder) {
  const TokenizerClass defaults{{{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}},
                                true};
  if (const fs::path file = folder / "tokenizer.json"; fs::exists(file)) {
    const Json document = read_json(file, ExitCode::kModel, kFileLimit);
    return std::make_unique<T5Tokenizer>(checked(parse_t5_document(document, file.string())),
                                         read_special_tokens(folder, defaults, &document));
  }
  const fs::path file = folder / "spiece.model";
  if (!fs::exists(file))
    throw Error(ExitCode::kModel, "no T5 tokenizer: neither tokenizer.json nor spiece.model", folder.string(),
                "a folder with one of these files, with --tokenizers DIR");
  const SentencePieceModel model =
      parse_sentencepiece(read_file(file, ExitCode::kModel, kFileLimit), file.string());
  if (model.model_type != SentencePieceModel::kUnigram || model.unknown != kUnknown)
    throw Error(ExitCode::kModel, fmt::format("expected a Unigram model whose <unk> is {}", kUnknown),
                file.string());
  T5Vocabulary vocabulary{
      {}, {}, model.charsmap.empty() ? Charsmap() : Charsmap(model.charsmap, file.string()), file.string()};
  std::vector<AddedToken> added;
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    vocabulary.pieces.push_back(piece.text);
    vocabulary.scores.push_back(piece.score);
    if (piece.type == SentencePieceModel::kControl || piece.type == SentencePieceModel::kUserDefined)
      added.push_back({.content = piece.text});
  }
  const SpecialTokens special = read_special_tokens(folder, defaults, nullptr, added);
  for (std::int64_t i = special.sentinels; i-- > 0;)
    vocabulary.pieces.push_back(fmt::format("<extra_id_{}>", i));
  vocabulary.scores.resize(vocabulary.pieces.size(), 0.0);
  return std::make_unique<T5Tokenizer>(checked(std::move(vocabulary)), special);
}

}  // namespace xdit::text
