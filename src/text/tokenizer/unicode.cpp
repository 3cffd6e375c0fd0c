#include "text/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>

#include "text/tokenizer/unicode_tables.h"

namespace xdit::text {

namespace {

constexpr char32_t kReplacement = 0xFFFD;

const Range* find(std::span<const Range> table, char32_t c) {
  const auto at = std::ranges::lower_bound(table, c, {}, &Range::last);
  return at != table.end() && at->first <= c ? &*at : nullptr;
}

utf8proc_int32_t signed_code(char32_t c) {
  return static_cast<utf8proc_int32_t>(c);
}

const utf8proc_uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const utf8proc_uint8_t*>(text.data());
}

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Bytes of the ill-formed part that starts `bytes`: the longest beginning of a well-formed sequence, or one
// byte (Unicode 15, section 3.9, table 3-7).
std::size_t ill_formed_part(std::string_view bytes) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned lead = byte(0);
  const std::size_t whole = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
  unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  std::size_t part = 1;
  while (part < std::min(whole, bytes.size()) && byte(part) >= low && byte(part) <= high) {
    ++part;
    low = 0x80;
    high = 0xBF;
  }
  return part;
}

// NFC of text without code points that are inert in it.
void append_nfc(std::string& to, std::string_view text) {
  if (is_ascii(text)) {
    to += text;
    return;
  }
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(bytes_of(text), static_cast<utf8proc_ssize_t>(text.size()), &result,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (size < 0) throw std::bad_alloc();  // of valid UTF-8 the only fault
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  to.append(reinterpret_cast<const char*>(result), static_cast<std::size_t>(size));
}

char letter_class(char32_t c) {
  if (const Range* range = find(kUnicodeTables.letter_classes, c)) return static_cast<char>(range->value);
  switch (utf8proc_category(signed_code(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return 'L';
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return 'N';
    default:
      return 'O';
  }
}

// A code point that utf8proc's version of Unicode breaks as `tokenizers` breaks `c`.
char32_t break_stand_in(char32_t c) {
  if (c < 0x80) return c;
  if (const Range* range = find(kUnicodeTables.break_stand_ins, c))
    return static_cast<char32_t>(range->value);
  const bool pictograph =
      utf8proc_get_property(signed_code(c))->boundclass == UTF8PROC_BOUNDCLASS_EXTENDED_PICTOGRAPHIC;
  return pictograph ? U'a' : c;
}

// Rule GB9c, which older versions of utf8proc lack: consonant, marks with a linker among them, consonant.
class Conjunct {
 public:
  // Whether `c` continues the cluster before it. `mark`: `c` joins whatever is before it.
  bool joins(char32_t c, bool mark) {
    const Range* range = find(kUnicodeTables.conjuncts, c);
    const bool linker = range != nullptr && range->value == 'L';
    const bool consonant = range != nullptr && range->value == 'C';
    const bool joined = consonant && state_ == kLinked;
    if (consonant)
      state_ = kConsonant;
    else if (linker)
      state_ = state_ == kNone ? kNone : kLinked;
    else if (!mark)
      state_ = kNone;
    return joined;
  }

 private:
  enum { kNone, kConsonant, kLinked } state_ = kNone;
};

bool is_conjunct_mark(char32_t c, char32_t stand_in) {
  constexpr char32_t kZeroWidthNonJoiner = 0x200C;
  const auto boundclass = utf8proc_get_property(signed_code(stand_in))->boundclass;
  return c != kZeroWidthNonJoiner &&
         (boundclass == UTF8PROC_BOUNDCLASS_EXTEND || boundclass == UTF8PROC_BOUNDCLASS_ZWJ);
}

}  // namespace

void append_utf8(std::string& to, char32_t c) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const auto count = utf8proc_encode_char(signed_code(c), bytes.data());
  to.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(count));
}

std::string valid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    utf8proc_int32_t code = 0;
    const auto good = utf8proc_iterate(bytes_of(bytes), static_cast<utf8proc_ssize_t>(bytes.size()), &code);
    const std::size_t count = good > 0 ? static_cast<std::size_t>(good) : ill_formed_part(bytes);
    if (good > 0)
      text += bytes.substr(0, count);
    else
      append_utf8(text, kReplacement);
    bytes.remove_prefix(count);
  }
  return text;
}

char32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) {
    ++at;
    return first;
  }
  utf8proc_int32_t code = 0;
  at += static_cast<std::size_t>(
      utf8proc_iterate(bytes_of(text) + at, static_cast<utf8proc_ssize_t>(text.size() - at), &code));
  return static_cast<char32_t>(code);
}

bool is_letter(char32_t c) {
  return letter_class(c) == 'L';
}

bool is_number(char32_t c) {
  return letter_class(c) == 'N';
}

bool is_space(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::string nfc(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  std::size_t run = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    if (find(kUnicodeTables.inert_in_nfc, next_code_point(text, at)) == nullptr) continue;
    append_nfc(result, text.substr(run, begin - run));
    result += text.substr(begin, at - begin);
    run = at;
  }
  append_nfc(result, text.substr(run));
  return result;
}

std::string lower(std::string_view text) {
  constexpr char32_t kCapitalIWithDot = 0x130;
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    const Range* range = find(kUnicodeTables.lower_case, c);
    if (c == kCapitalIWithDot)
      result += "i\u0307";
    else if (range != nullptr)
      append_utf8(result, static_cast<char32_t>(signed_code(c) + range->value));
    else
      append_utf8(result, static_cast<char32_t>(utf8proc_tolower(signed_code(c))));
  }
  return result;
}

std::vector<std::string_view> graphemes(std::string_view text) {
  std::vector<std::string_view> clusters;
  utf8proc_int32_t state = 0;
  Conjunct conjunct;
  char32_t previous = 0;
  std::size_t start = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t c = next_code_point(text, at);
    const char32_t stand_in = break_stand_in(c);
    const bool joins = conjunct.joins(c, is_conjunct_mark(c, stand_in));
    if (begin > 0 && utf8proc_grapheme_break_stateful(signed_code(previous), signed_code(stand_in), &state) &&
        !joins) {
      clusters.push_back(text.substr(start, begin - start));
      start = begin;
    }
    previous = stand_in;
  }
  if (start < text.size()) clusters.push_back(text.substr(start));
  return clusters;
}

}  // namespace xdit::text
