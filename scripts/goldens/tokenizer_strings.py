"""The strings that tokenizers are compared on: every script, and what breaks tokenizers. Bytes, not always UTF-8."""

# ruff: noqa: RUF001
import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterator

# Scripts that are newer than the unicodedata of Python 3.11 (Unicode 14).
NEWER_SCRIPTS = {
    "KAWI": (0x11F02, 0x11F33),
    "NAG MUNDARI": (0x1E4D0, 0x1E4EB),
    "GARAY": (0x10D4A, 0x10D85),
    "TODHRI": (0x105C0, 0x105F3),
    "SUNUWAR": (0x11BC0, 0x11BE0),
    "GURUNG KHEMA": (0x16100, 0x1612F),
    "KIRAT RAI": (0x16D40, 0x16D79),
    "TULU-TIGALARI": (0x11380, 0x113E2),
    "OL ONAL": (0x1E5D0, 0x1E5FA),
    "SIDETIC": (0x10940, 0x10959),
    "BERIA ERFE": (0x16EA0, 0x16ED3),
    "TOLONG SIKI": (0x11DB0, 0x11DDB),
    "TAI YO": (0x1E6C0, 0x1E6FF),
    "CJK EXTENSIONS H TO J": (0x31350, 0x33479),
}
TWO_WORD_SCRIPTS = (
    "CANADIAN",
    "OLD",
    "TAI",
    "MEETEI",
    "SYLOTI",
    "INSCRIPTIONAL",
    "MASARAM",
    "GUNJALA",
    "PAU",
    "LINEAR",
)
# Of them, and of their neighbours in these blocks, most strings are made.
MARKS = [*range(0x300, 0x370), 0x483, 0x591, 0x5B0, 0x5C1, 0x64B, 0x651, 0x93C, 0x94D, 0x3099, 0x309A, 0x20D0, 0x20E3]
MARKS += [0xFE0E, 0xFE0F, 0x200D, 0x897, 0x1ACF, 0x11F41, 0x1E08F, 0x0E33, 0x0EB3, 0x0903, 0x1D165, 0xE0100]
INVISIBLE = [*range(0x20), 0x7F, 0x85, 0xA0, 0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x1680, 0x180B, 0x180E]
INVISIBLE += [*range(0x2000, 0x2010), *range(0x2028, 0x2030), *range(0x205F, 0x2070), 0x2581, 0x3000, 0x3164, 0xFEFF]
INVISIBLE += [0xFFA0, *range(0xFFF9, 0xFFFE), 0xE0001, 0xE0020, 0xE007F, 0xE0FFF, 0x10FFFF, 0xFFFF, 0xE000]
FOLDING = [*range(0xA0, 0x100), *range(0x132, 0x134), 0x130, 0x131, 0x149, 0x17F, 0x1C4, 0x1F1, 0x3A3, 0x3C2, 0x3F4]
FOLDING += [0x1E9B, 0x1E9E, 0x1FB3, 0x2002, 0x2011, 0x2024, 0x2026, 0x2033, 0x203C, 0x2057, 0x20A8, 0x2103, 0x2116]
FOLDING += [0x2122, 0x2126, 0x212A, 0x212B, 0x2153, 0x2163, 0x2460, 0x24C2, 0x2A74, 0x2ADC, 0x309B, 0x309F, 0x3131]
FOLDING += [0x3297, 0x32CC, 0x3300, 0x33FF, 0x958, 0x9DC, 0xF43, 0xF73, 0xF81, 0x340, 0x341, 0x343, 0x344, 0x374]
FOLDING += [*range(0xFB00, 0xFB07), 0xFB1D, 0xFB1F, 0xFB2A, 0xFB4F, 0xFDFA, 0xFDFB, 0xFE70, 0xFEFB, 0xF900, 0xFA0C]
FOLDING += [*range(0xFF01, 0xFF61, 5), *range(0xFF61, 0xFFA0, 4), 0xFFE0, 0xFFE8, 0x1D15E, 0x1D400, 0x1D7CE, 0x1EE00]
FOLDING += [0x1F100, 0x1F130, 0x1F200, 0x1F240, 0x2F800, 0x2FA1D, 0x10D50, 0xA7CB, 0x1C89, 0x105D2, 0x11935, 0x11930]
JAMO = [0x1100, 0x1112, 0x1161, 0x1175, 0x11A8, 0x11C2, 0xA960, 0xD7B0, 0xD7CB, 0xAC00, 0xAC01, 0xD7A3]
EMOJI = [0x1F600, 0x2764, 0x2639, 0x1F44D, 0x1F3FB, 0x1F3FF, 0x200D, 0xFE0F, 0x2640, 0x1F468, 0x1F467, 0x1F1E6, 0x1F1FF]
EMOJI += [0x20E3, 0x23, 0x31, 0xA9, 0xAE, 0x2122, 0x1F3F4, 0xE0067, 0xE0062, 0xE007F, 0x1FAE8, 0x1F6DC, 0x3030, 0x2388]
SPECIAL = [
    "<|startoftext|>",
    "<|endoftext|>",
    "</s>",
    "<pad>",
    "<unk>",
    "<extra_id_0>",
    "<extra_id_99>",
    "<extra_id_100>",
]
SPECIAL += [
    "<|STARTOFTEXT|>",
    "<|EndOfText|>",
    "</S>",
    "<|endoftext|",
    "<|endoftext>",
    "<extra_id_1",
    "<|>",
    "</w>",
    "▁",
]
SPECIAL += ["＜|endoftext|＞", "＜/s＞", "＜unk＞", "＜extra_id_0＞", "<extra_id_00>"]
WORDS = """a an the of and with in photo painting portrait highly detailed cinematic lighting Unreal Engine 8k HDR don't
I'm you're he's they've we'll she'd it's O'Neill rock'n'roll 's 't 're 've 'm 'll 'd 'S 'T ''s '''' café naïve Straße
ÎLE İstanbul ΣΊΣΥΦΟΣ Ǆ ﬁne oﬃce №5 ½ x² 10km 3.14 1,000,000 2024-01-31 #tag @user user@example.com https://example.com/a?b=c
(masterpiece:1.2) [wip] {a|b} --ar 16:9 C++ C# .NET $5 €10 100% A&B foo_bar snake_case CamelCase UPPER wow!!! what?! ...
… — – ‘quoted’ “quoted” «quoted» hello,world end. ~ ` ^ \\ / | <tag> </tag> <3 :-) ¯\\_(ツ)_/¯ 灯台 東京タワー 你好 안녕하세요 Привет
мир שלום مرحبا नमस्ते สวัสดี γειά בָּרָא الْعَرَبِيَّةُ क्षि ไม้ Tiếng Việt ﷺ 🦊 ☕ 👩‍🚀 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 🇯🇵🇫🇷 👍🏽 1️⃣ ❤️ ☺︎ 🏴󠁧󠁢󠁥󠁮󠁧󠁿""".split()
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\u3000", "\u00a0", "\u2003", "\u2028", "\u0085", "\v", "\f", "\u200b"]
INVALID = [
    b"\xff",
    b"\xc3",
    b"\xc0\xaf",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x92",
    b"\xf4\x90\x80\x80",
    b"\x80",
    b"\xf5",
]
INVALID += [
    b"\xe0\x80\x80",
    b"\xf0\x80\x80\x80",
    b"\xf1\x80\x80",
    b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41",
    b"\xef\xbf",
    b"\xfe",
]


def scripts() -> dict[str, list[str]]:
    """The assigned code points by the first words of their names."""
    groups = defaultdict(list)
    for c in map(chr, range(0x110000)):
        words = unicodedata.name(c, "").split()
        if words and words[0] != "<control>":
            groups[" ".join(words[: 2 if words[0] in TWO_WORD_SCRIPTS else 1])].append(c)
    groups |= {name: [chr(c) for c in range(first, last + 1)] for name, (first, last) in NEWER_SCRIPTS.items()}
    return {name: points for name, points in sorted(groups.items()) if len(points) > 7}


def of_scripts(random_source: random.Random) -> Iterator[str]:
    for points in scripts().values():
        for _ in range(2):
            words = ["".join(random_source.choices(points, k=random_source.randint(1, 6))) for _ in range(3)]
            yield random_source.choice([" ", " ", "", "\n"]).join(words)


def mixture(random_source: random.Random) -> str:
    """A few code points of a few kinds."""
    kinds = [
        MARKS,
        INVISIBLE,
        FOLDING,
        FOLDING,
        JAMO,
        EMOJI,
        range(0x20, 0x7F),
        range(0xA0, 0x2000),
        range(0x2000, 0xD800),
    ]
    kinds += [range(0xF900, 0x10000), range(0x10000, 0x1FFFE), range(0xE0000, 0xE1000)]
    chosen = random_source.sample(kinds, random_source.randint(1, 4))
    return "".join(chr(random_source.choice(random_source.choice(chosen))) for _ in range(random_source.randint(1, 16)))


def prompt(random_source: random.Random) -> str:
    words = random_source.choices(WORDS, k=random_source.randint(1, 12))
    if random_source.random() < 0.4:
        words.insert(random_source.randint(0, len(words)), random_source.choice(SPECIAL))
    text = ""
    for word in words:
        text += word + random_source.choice(["", *[" "] * 8, ", ", *SPACES])
    return text.upper() if random_source.random() < 0.1 else text


def invalid(random_source: random.Random) -> bytes:
    text = prompt(random_source).encode()
    for _ in range(random_source.randint(1, 3)):
        at = random_source.randint(0, len(text))
        text = text[:at] + random_source.choice(INVALID) + text[at:]
    return text if random_source.random() < 0.7 else random_source.randbytes(random_source.randint(1, 20))


def fixed() -> Iterator[str]:
    yield from [
        "",
        " ",
        "   ",
        "\n",
        "\t\t",
        "\0",
        "a\0b",
        "▁",
        "▁▁",
        " ▁ ",
        "a▁b",
        "▁a ▁",
        "\ufeff",
        "\u200b",
        "�",
        "é",
        "ﬁ́",
    ]
    yield from [
        "a" * 500,
        "A" * 500,
        "é" * 300,
        "e\u0301" * 150,
        "x" + "\u0301" * 200,
        "!" * 300,
        "0" * 100,
        "字" * 200,
    ]
    yield from [
        " " * 300,
        "a" + " " * 300 + "b",
        "\t\n" * 100,
        "a " * 200,
        "'s" * 100,
        "'" * 100,
        "👩‍🚀" * 40,
        "🇩" * 41,
    ]
    yield from [text + after for text in SPECIAL for after in ("", " ", "a")]
    yield from [f"a{text}b {text}{text}  {text} !" for text in SPECIAL]
    yield from WORDS
    yield from [f"a{space}b{space}" for space in SPACES]
    yield from [f"{a}{b}" for a in "ª½™ﬁĳ㊗クはक가©" for b in "\u0301\u200d\u0903\ufe0f\u3099\u093c\u0897"]


def long_words(random_source: random.Random) -> Iterator[str]:
    yield "".join(random_source.choices("etaoinshrdlu", k=4000))
    yield "".join(chr(c) for c in random_source.choices(range(0x20, 0x3000), k=1500))
    yield "".join(random_source.choices("▁é字ﬁ", k=1000))


def strings(seed: int, mixtures: int, prompts: int, invalids: int) -> list[bytes]:
    random_source = random.Random(seed)
    texts = [*fixed(), *long_words(random_source), *of_scripts(random_source)]
    texts += [mixture(random_source) for _ in range(mixtures)] + [prompt(random_source) for _ in range(prompts)]
    all_bytes = [text.encode() for text in texts] + [bytes(part) for part in INVALID]
    all_bytes += [b"caf" + part + b"e " + part for part in INVALID] + [invalid(random_source) for _ in range(invalids)]
    return list(dict.fromkeys(all_bytes))


def training_text(seed: int) -> Iterator[str]:
    """Sentences of invented words in every script, some words far more frequent than others."""
    random_source = random.Random(seed)
    for points in scripts().values():
        letters = [c for c in points if c.isalnum()]
        if len(letters) < 6:
            continue
        letters = random_source.sample(letters, k=6)
        lexicon = ["".join(random_source.choices(letters, k=random_source.randint(1, 5))) for _ in range(12)]
        weights = [1 / (i + 1) for i in range(len(lexicon))]
        for _ in range(12):
            yield " ".join(random_source.choices(lexicon, weights, k=10))
