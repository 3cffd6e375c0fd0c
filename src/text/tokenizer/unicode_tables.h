#pragma once
#include <span>

namespace xdit::text {

/// Code points first..last, and what a table says of them.
struct Range {
  char32_t first, last;
  int value;
};

/// Where Hugging Face `tokenizers` 0.23 and utf8proc know different versions of Unicode. Each table is
/// sorted.
struct UnicodeTables {
  std::span<const Range> letter_classes;  ///< 'L' letter, 'N' number, 'O' neither
  std::span<const Range> inert_in_nfc;    ///< NFC leaves these alone wherever they stand
  std::span<const Range> lower_case;      ///< distance to the lower case
  std::span<const Range>
      break_stand_ins;               ///< a code point that breaks graphemes as these do; all pictographs
  std::span<const Range> conjuncts;  ///< 'L' linkers and 'C' consonants of grapheme rule GB9c
};
extern const UnicodeTables kUnicodeTables;

}  // namespace xdit::text
