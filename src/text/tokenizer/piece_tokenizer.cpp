#include "text/tokenizer/piece_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "text/tokenizer/unicode.h"

namespace xdit::text {

PieceTokenizer::PieceTokenizer(std::vector<std::string> pieces, const std::string& where)
    : pieces_(std::move(pieces)) {
  piece_ids_.reserve(pieces_.size());
  for (const std::string& piece : pieces_) {
    const auto id = static_cast<std::int32_t>(piece_ids_.size());
    const auto [at, is_new] = piece_ids_.emplace(piece, id);
    if (!is_new)
      throw Error(ExitCode::kModel, fmt::format("\"{}\" is piece {} and piece {}", piece, at->second, id),
                  where);
  }
}

void PieceTokenizer::add_tokens(const SpecialTokens& special, std::span<const char* const> before,
                                std::span<const char* const> after) {
  const auto id_of_piece = [&](std::string_view piece) -> std::optional<std::int64_t> {
    const auto at = piece_ids_.find(piece);
    return at == piece_ids_.end() ? std::nullopt : std::optional<std::int64_t>(at->second);
  };
  added_ = AddedTokens(special.added, {static_cast<std::int64_t>(pieces_.size()), id_of_piece,
                                       [this](std::string_view text) { return normalize(text); }});
  const auto id_of = [&](const char* name) { return added_.id_of(special.names.at(name)).value(); };
  for (const char* name : before) before_.push_back(id_of(name));
  for (const char* name : after) after_.push_back(id_of(name));
  padding_ = id_of("pad_token");
}

const std::string& PieceTokenizer::text_of(std::int64_t id) const {
  const std::string* added = added_.text_of(id);
  return added != nullptr ? *added : pieces_[static_cast<std::size_t>(id)];
}

std::vector<std::int64_t> PieceTokenizer::ids(std::string_view utf8) const {
  std::vector<std::int64_t> result;
  const std::string text = valid_utf8(utf8);
  for (const AddedTokens::Part& part : added_.split(text, false)) {
    if (part.id >= 0) {
      result.push_back(part.id);
      continue;
    }
    const std::string normalized = normalize(part.text);
    for (const AddedTokens::Part& inner : added_.split(normalized, true)) {
      if (inner.id >= 0)
        result.push_back(inner.id);
      else
        encode_text(inner.text, result);
    }
  }
  return result;
}

TokenIds PieceTokenizer::encode(std::string_view utf8, std::int64_t length) const {
  const std::size_t frame = before_.size() + after_.size();
  if (length < static_cast<std::int64_t>(frame))
    throw Error(ExitCode::kUsage,
                fmt::format("a prompt of {} tokens has no room for the {} special ones", length, frame));
  const auto whole = static_cast<std::size_t>(length);
  const std::vector<std::int64_t> inner = ids(utf8);
  const std::size_t kept = std::min(inner.size(), whole - frame);

  TokenIds result{before_, 0, {}};
  result.ids.reserve(whole);
  result.ids.insert(result.ids.end(), inner.begin(), inner.begin() + static_cast<std::ptrdiff_t>(kept));
  result.ids.insert(result.ids.end(), after_.begin(), after_.end());
  result.used = static_cast<std::int64_t>(result.ids.size());
  result.ids.resize(whole, padding_);
  if (kept < inner.size()) result.cut = decode(std::span(inner).subspan(kept));
  return result;
}

}  // namespace xdit::text
