#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/files.h"
#include "text/tokenizer/piece_tokenizer.h"
#include "text/tokenizer/special_tokens.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/unicode.h"

namespace xdit::text {
namespace fs = std::filesystem;

namespace {

struct ClipVocabulary {
  std::vector<std::string> pieces;  // by id
  std::vector<Bpe::Merge> merges;
  std::string where;
};

std::vector<std::string> pieces_by_id(const Json& ids, const std::string& where) {
  if (!ids.is_object() || ids.empty())
    throw Error(ExitCode::kModel, "expected a vocabulary: {\"piece\": id, ...}", where);
  std::vector<const std::string*> by_id(ids.size());
  for (auto entry = ids.begin(); entry != ids.end(); ++entry) {
    const std::string& piece = entry.key();
    if (!entry->is_number_unsigned() || entry->get<std::uint64_t>() >= by_id.size())
      throw Error(ExitCode::kModel, fmt::format("\"{}\" has no id between 0 and {}", piece, by_id.size() - 1),
                  where);
    const std::string*& place = by_id[entry->get<std::size_t>()];
    if (place != nullptr)
      throw Error(ExitCode::kModel, fmt::format("\"{}\" and \"{}\" have the same id", *place, piece), where);
    place = &piece;
  }
  std::vector<std::string> pieces;
  pieces.reserve(by_id.size());
  for (const std::string* piece : by_id) pieces.push_back(*piece);
  return pieces;
}

Bpe::Merge split_merge(std::string_view line, std::size_t number, const std::string& where) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
    throw Error(ExitCode::kModel,
                fmt::format("expected two pieces with a space between them, not \"{}\"", line),
                fmt::format("{}:{}", where, number));
  return {std::string(line.substr(0, space)), std::string(line.substr(space + 1))};
}

std::vector<Bpe::Merge> read_merges(const fs::path& file) {
  const std::string text = read_file(file, ExitCode::kModel, kFileLimit);
  if (valid_utf8(text) != text) throw Error(ExitCode::kModel, "not UTF-8", file.string());
  std::vector<Bpe::Merge> merges;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    ++number;
    if (!line.starts_with("#version")) merges.push_back(split_merge(line, number, file.string()));
    begin = end + 1;
  }
  return merges;
}

// The model of a tokenizer.json.
ClipVocabulary parse_clip_document(const Json& document, const std::string& where) {
  const Json* model = find_member(document, "model");
  const Json* type = model != nullptr ? find_member(*model, "type") : nullptr;
  const Json* ids = model != nullptr ? find_member(*model, "vocab") : nullptr;
  const Json* merges = model != nullptr ? find_member(*model, "merges") : nullptr;
  if (ids == nullptr || merges == nullptr || !merges->is_array() || (type != nullptr && *type != "BPE"))
    throw Error(ExitCode::kModel, "expected a \"model\" of type BPE with \"vocab\" and \"merges\"", where);
  ClipVocabulary vocabulary{pieces_by_id(*ids, where + ": model.vocab"), {}, where};
  const std::string place = where + ": model.merges";
  for (const Json& merge : *merges) {
    const std::size_t number = vocabulary.merges.size() + 1;
    if (merge.is_string())
      vocabulary.merges.push_back(split_merge(merge.get_ref<const std::string&>(), number, place));
    else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
      vocabulary.merges.emplace_back(merge[0], merge[1]);
    else
      throw Error(ExitCode::kModel, "expected two pieces", fmt::format("{}:{}", place, number));
  }
  return vocabulary;
}

class ClipTokenizer final : public PieceTokenizer {
 public:
  ClipTokenizer(ClipVocabulary vocabulary, const SpecialTokens& special)
      : PieceTokenizer(std::move(vocabulary.pieces), vocabulary.where),
        bpe_(piece_ids(), vocabulary.merges, special.names.at("unk_token"), vocabulary.where) {
    static constexpr std::array kBefore = {"bos_token"};
    static constexpr std::array kAfter = {"eos_token"};
    add_tokens(special, kBefore, kAfter);
  }

 protected:
  [[nodiscard]] std::string normalize(std::string_view text) const override {
    const std::string composed = nfc(text);
    std::string spaced;
    spaced.reserve(composed.size());
    bool space = false;  // whether the last code point was one
    for (std::size_t at = 0; at < composed.size();) {
      const std::size_t begin = at;
      const bool before = std::exchange(space, is_space(next_code_point(composed, at)));
      if (!space)
        spaced += std::string_view(composed).substr(begin, at - begin);
      else if (!before)
        spaced += ' ';
    }
    return lower(spaced);
  }

  void encode_text(std::string_view normalized, std::vector<std::int64_t>& ids) const override {
    for_each_word(normalized, [&](std::string_view word) { bpe_.encode(word, ids); });
  }

  [[nodiscard]] std::string decode(std::span<const std::int64_t> ids) const override {
    constexpr std::string_view kWordEnd = "</w>";
    std::string bytes;
    for (const std::int64_t id : ids) bytes += Bpe::bytes_of(text_of(id));
    std::string text = valid_utf8(bytes);
    for (std::size_t at = text.find(kWordEnd); at != std::string::npos; at = text.find(kWordEnd, at))
      text.replace(at, kWordEnd.size(), " ");
    const auto first = text.find_first_not_of(' ');
    return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(' ') + 1 - first);
  }

 private:
  // CLIP's pattern: a special token's text, a contraction, letters, one number, or neither letters, numbers
  // nor spaces. The pattern of byte-level BPE, which follows, cuts the special token's text into its three
  // parts.
  template <typename Word>
  static void for_each_word(std::string_view text, Word&& word) {
    using namespace std::string_view_literals;
    static constexpr std::array kContractions = {"'s"sv, "'t"sv, "'re"sv, "'ve"sv, "'m"sv, "'ll"sv, "'d"sv};
    static constexpr std::array kSpecialWords = {"startoftext"sv, "endoftext"sv};
    const auto kind = [&](std::size_t& at) {
      const char32_t c = next_code_point(text, at);
      return is_letter(c) ? 'L' : is_number(c) ? 'N' : is_space(c) ? ' ' : 'O';
    };
    const auto first_of = [&](const auto& list, std::size_t begin,
                              std::string_view after) -> std::string_view {
      for (const std::string_view item : list)
        if (text.substr(begin).starts_with(item) && text.substr(begin + item.size()).starts_with(after))
          return item;
      return {};
    };
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t begin = at;
      if (text.substr(at).starts_with("<|")) {
        if (const std::string_view inner = first_of(kSpecialWords, at + 2, "|>"); !inner.empty()) {
          word(text.substr(at, 2));
          word(inner);
          word("|>"sv);
          at += inner.size() + 4;
          continue;
        }
      }
      if (const std::string_view contraction = first_of(kContractions, at, ""); !contraction.empty()) {
        word(contraction);
        at += contraction.size();
        continue;
      }
      const char first = kind(at);
      if (first == ' ') continue;
      for (std::size_t next = at; first != 'N' && at < text.size() && kind(next) == first;) at = next;
      word(text.substr(begin, at - begin));
    }
  }

  Bpe bpe_;
};

}  // namespace

std::unique_ptr<Tokenizer> open_clip_tokenizer(const fs::path& folder) {
  const TokenizerClass defaults{{{"bos_token", "<|startoftext|>"},
                                 {"eos_token", "<|endoftext|>"},
                                 {"unk_token", "<|endoftext|>"},
                                 {"pad_token", "<|endoftext|>"}}};
  if (const fs::path file = folder / "tokenizer.json"; fs::exists(file)) {
    const Json document = read_json(file, ExitCode::kModel, kFileLimit);
    return std::make_unique<ClipTokenizer>(parse_clip_document(document, file.string()),
                                           read_special_tokens(folder, defaults, &document));
  }
  const fs::path vocabulary = folder / "vocab.json";
  const fs::path merges = folder / "merges.txt";
  if (!fs::exists(vocabulary) || !fs::exists(merges))
    throw Error(ExitCode::kModel, "no CLIP tokenizer: neither tokenizer.json nor vocab.json with merges.txt",
                folder.string(), "a folder with these files, with --tokenizers DIR");
  ClipVocabulary read{pieces_by_id(read_json(vocabulary, ExitCode::kModel, kFileLimit), vocabulary.string()),
                      read_merges(merges), merges.string()};
  return std::make_unique<ClipTokenizer>(std::move(read), read_special_tokens(folder, defaults, nullptr));
}

}  // namespace xdit::text
