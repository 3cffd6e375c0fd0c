#include "text/tokenizer/charsmap.h"

#include <fmt/format.h>

#include <utility>

#include "core/error.h"
#include "text/tokenizer/unicode.h"

namespace xdit::text {

namespace {

std::uint32_t little_endian(std::string_view bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 4; i-- > 0;) value = value << 8U | static_cast<unsigned char>(bytes[i]);
  return value;
}

// A unit of the array (darts-clone): label, bit 8 has a value, bits 9 to 31 distance to the children.
std::uint64_t children(std::uint32_t unit) {
  return static_cast<std::uint64_t>(unit >> 10U) << ((unit & 0x200U) >> 6U);
}

}  // namespace

Charsmap::Charsmap(std::string_view blob, std::string where) : where_(std::move(where)) {
  const std::size_t trie_bytes = blob.size() < 4 ? 0 : little_endian(blob);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > blob.size() - 4)
    throw Error(
        ExitCode::kModel,
        fmt::format("the precompiled normaliser of {} bytes claims a trie of {}", blob.size(), trie_bytes),
        where_);
  blob.remove_prefix(4);
  trie_.reserve(trie_bytes / 4);
  for (std::size_t i = 0; i < trie_bytes; i += 4) trie_.push_back(little_endian(blob.substr(i)));
  replacements_ = blob.substr(trie_bytes);
  if (valid_utf8(replacements_) != replacements_)
    throw Error(ExitCode::kModel, "the replacements of the precompiled normaliser are not UTF-8", where_);
}

std::uint32_t Charsmap::unit(std::uint64_t index) const {
  if (index >= trie_.size())
    throw Error(ExitCode::kModel, "the trie of the precompiled normaliser points outside itself", where_);
  return trie_[index];
}

std::string_view Charsmap::replacement_at(std::uint32_t offset) const {
  const std::string_view all = replacements_;
  // At its end, or inside a code point (a continuation byte), no replacement starts.
  if (offset > all.size() ||
      (offset < all.size() && (static_cast<unsigned char>(all[offset]) & 0xC0U) == 0x80U))
    throw Error(ExitCode::kModel, fmt::format("the precompiled normaliser has no replacement at {}", offset),
                where_);
  return all.substr(offset, all.find('\0', offset) - offset);
}

std::optional<std::string_view> Charsmap::replacement(std::string_view text) const {
  constexpr std::uint32_t kLabel = 0x800000FFU;
  constexpr std::uint32_t kHasValue = 0x100U;
  constexpr std::uint32_t kValue = 0x7FFFFFFFU;
  std::uint64_t node = children(unit(0));
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) return std::nullopt;
    node ^= byte;
    const std::uint32_t found = unit(node);
    if ((found & kLabel) != byte) return std::nullopt;
    node ^= children(found);
    if ((found & kHasValue) != 0) return replacement_at(unit(node) & kValue);
  }
  return std::nullopt;
}

std::string Charsmap::normalize(std::string_view text) const {
  constexpr std::size_t kLongestWhole = 5;
  if (trie_.empty()) return std::string(text);
  std::string result;
  result.reserve(text.size());
  for (const std::string_view grapheme : graphemes(text)) {
    if (grapheme.size() <= kLongestWhole) {
      if (const auto whole = replacement(grapheme)) {
        result += *whole;
        continue;
      }
    }
    for (std::size_t at = 0; at < grapheme.size();) {
      const std::size_t begin = at;
      static_cast<void>(next_code_point(grapheme, at));
      const std::string_view part = grapheme.substr(begin, at - begin);
      result += replacement(part).value_or(part);
    }
  }
  return result;
}

}  // namespace xdit::text
