#!/usr/bin/env python3
"""Prints src/text/tokenizer/unicode_tables.cpp: where Hugging Face `tokenizers` and utf8proc know different Unicode.

unicode_tables.py | clang-format --assume-filename=x.cpp > src/text/tokenizer/unicode_tables.cpp

Asks `tokenizers` itself, code point by code point. Needs tokenizers 0.23.3 (whose \\p{..} are Unicode 16, NFC Unicode
10, lower case and graphemes Unicode 17), libutf8proc.so and PyPI's unicodedata2 (for what a newer utf8proc will know).
"""

import ctypes
import struct
from collections.abc import Callable, Iterable

import unicodedata2
from tokenizers import Regex, normalizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
Points = set[int]
Row = tuple[int, int, object]

utf8proc = ctypes.CDLL("libutf8proc.so.2")
utf8proc.utf8proc_category_string.restype = ctypes.c_char_p
utf8proc.utf8proc_grapheme_break.restype = ctypes.c_bool
grapheme_break = utf8proc.utf8proc_grapheme_break


def matching(pattern: str) -> Points:
    """Code points that a regular expression of `tokenizers` matches."""
    remove = normalizers.Replace(Regex(pattern), "").normalize_str
    found = set()
    for start in range(0, len(CODE_POINTS), 4096):
        chunk = "".join(map(chr, CODE_POINTS[start : start + 4096]))
        found |= {ord(c) for c in set(chunk) - set(remove(chunk))}
    return found


def where(holds: Callable[[str], bool], points: Iterable[int] = CODE_POINTS) -> Points:
    return {c for c in points if holds(chr(c))}


def rewriter(first_bytes: Iterable[int]) -> Callable[[str], str]:
    """A Precompiled normaliser that rewrites every key that starts with one of these bytes as "X".

    `tokenizers` asks it for each grapheme of under 6 bytes, then for each code point: so it shows where graphemes end.
    """
    units = [0] * 1024
    units[0] = 256 << 10
    for byte in first_bytes:
        units[256 ^ byte] = byte | 1 << 8 | 768 << 10
        units[256 ^ byte ^ 768] = 1 << 31
    blob = struct.pack("<1025I", 4096, *units) + b"X\0"
    return normalizers.Precompiled(blob).normalize_str


def letter_classes() -> list[Row]:
    """(first, last, class): what `tokenizers` takes for a letter (L), a number (N) or neither (O), unlike others."""
    theirs = dict.fromkeys(matching(r"\p{L}"), "L") | dict.fromkeys(matching(r"\p{N}"), "N")
    differing: dict[str, Points] = {"L": set(), "N": set(), "O": set()}
    for c in CODE_POINTS:
        kind = theirs.get(c, "O")
        for category in (utf8proc.utf8proc_category_string(c).decode(), unicodedata2.category(chr(c))):
            if (category[0] if category[0] in "LN" else "O") != kind:
                differing[kind].add(c)
    return sorted((*r, f"'{kind}'") for kind, points in differing.items() for r in ranges(points))


def inert_in_nfc() -> Points:
    """Code points that NFC of `tokenizers` leaves alone wherever they stand, and that of utf8proc does not."""
    nfc = normalizers.NFC().normalize_str
    decompositions = {c: unicodedata2.decomposition(chr(c)) for c in CODE_POINTS}
    pairs = {c: [int(x, 16) for x in d.split()] for c, d in decompositions.items() if d and not d.startswith("<")}
    theirs, newest = set(), set(where(unicodedata2.combining))
    for c, parts in pairs.items():
        newest |= {c, *parts}
        if nfc(chr(c)) != chr(c) or nfc("".join(map(chr, parts))) != "".join(map(chr, parts)):
            theirs |= {c, *parts}
    theirs |= where(lambda c: nfc(f"q{c}\u0334") == f"q\u0334{c}" or nfc(f"q\u0345{c}") == f"q{c}\u0345")
    return newest - theirs | {0x11A7}  # which utf8proc swallows after a Hangul syllable


def lower_case() -> list[Row]:
    """(first, last, distance) of one-to-one mappings that utf8proc lacks."""
    lower = normalizers.Lowercase().normalize_str
    distances: dict[int, Points] = {}
    for c in CODE_POINTS:
        small = lower(chr(c))
        if len(small) == 1 and ord(small) != utf8proc.utf8proc_tolower(c):
            distances.setdefault(ord(small) - c, set()).add(c)
    return sorted((*r, distance) for distance, points in distances.items() for r in ranges(points))


def break_classes() -> dict[str, Points]:
    """What graphemes of `tokenizers` show of each code point."""
    of_a, of_mark, of_high = rewriter(b"a"), rewriter([0xCC, 0xCD]), rewriter(range(0xC2, 0xF5))
    high, three_bytes = CODE_POINTS[0x80:], CODE_POINTS[0x800:0xF800]
    extend = where(lambda c: of_a(f"a{c}") == "X" and c != "\0")
    # \u0344\u0301 is a grapheme of its own, rewritten as a whole, after a control character only
    control = where(lambda c: of_mark(f"{c}\u0344\u0301").count("X") == 1, high) - extend
    return {
        "extend": extend,
        "control": control,
        "prepend": where(lambda c: of_high(f"{c}a") == "X", high),
        "pictograph": where(lambda c: of_high(f"\u00a9\u200d{c}") == "XXX", high) - extend,
        # after a Devanagari conjunct a consonant and its accent are no grapheme of their own
        "linker": where(lambda c: of_high(f"\u0915{c}\u0958\u0301") == "XXXX", three_bytes) & extend,
        "consonant": where(lambda c: of_high(f"\u0915\u094d{c}\u0301") == "XXXX", three_bytes) - extend - control,
    }


def break_stand_ins(classes: dict[str, Points]) -> list[Row]:
    """(first, last, stand-in): a code point that utf8proc knows and that breaks graphemes as these do."""
    prepend = where(lambda c: not grapheme_break(ord(c), ord("a")), CODE_POINTS[0x80:])
    stand_ins = {
        0x300: classes["extend"] - where(lambda c: not grapheme_break(ord("a"), ord(c))),
        0x600: classes["prepend"] - prepend,
        ord("a"): prepend - classes["prepend"],
        0x1: classes["control"] - where(lambda c: grapheme_break(ord(c), 0x308)),
        0x2764: classes["pictograph"],  # all of them: the newest Unicode has fewer
    }
    return sorted((*r, hex(stand_in)) for stand_in, points in stand_ins.items() for r in ranges(points))


def conjuncts(classes: dict[str, Points]) -> list[Row]:
    """(first, last, 'L' or 'C'): linkers and consonants of rule GB9c. Three bytes: longer ones cannot matter."""
    kinds = {"'L'": classes["linker"], "'C'": classes["consonant"]}
    return sorted((*r, kind) for kind, points in kinds.items() for r in ranges(points))


def ranges(points: Points) -> list[tuple[int, int]]:
    found: list[list[int]] = []
    for c in sorted(points):
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return [(first, last) for first, last in found]


def table(name: str, rows: Iterable[Row]) -> str:
    text = ", ".join(f"{{0x{first:X}, 0x{last:X}, {value}}}" for first, last, value in rows)
    return f"constexpr Range k{name}[] = {{{text}}};\n"


def main() -> None:
    classes = break_classes()
    print('// Written by scripts/goldens/unicode_tables.py.\n#include "text/tokenizer/unicode_tables.h"\n')
    print("namespace xdit::text {\nnamespace {\n")
    print(table("LetterClasses", letter_classes()))
    print(table("InertInNfc", ((*r, 0) for r in ranges(inert_in_nfc()))))
    print(table("LowerCase", lower_case()))
    print(table("BreakStandIns", break_stand_ins(classes)))
    print(table("Conjuncts", conjuncts(classes)))
    print("}  // namespace\n")
    print("const UnicodeTables kUnicodeTables{kLetterClasses, kInertInNfc, kLowerCase, kBreakStandIns, kConjuncts};\n")
    print("}  // namespace xdit::text")


if __name__ == "__main__":
    main()
