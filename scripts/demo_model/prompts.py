"""Training prompts: for each emoji many ways to ask for it, none of which asks for another one."""

import random
from collections import Counter

from glyphs import Emoji

PROMPTS_PER_EMOJI = 128
TEMPLATES = ("picture of {a}", "a picture of {a}", "a drawing of {a}", "an emoji of {a}", "an icon of {a}",
             "a photo of {a}", "{n} emoji", "{n} icon", "{n}, white background", "{n} on a white background",
             "draw {a}", "the {n}")


def _article(name: str) -> str:
    return ("an " if name[0].lower() in "aeiou" else "a ") + name


def _phrase(emoji: Emoji, own_keywords: list[str], rng: random.Random) -> str:
    name, keywords = emoji.name, list(emoji.keywords) or [emoji.name]
    kind = rng.random()
    if kind < 0.35:
        return name
    if kind < 0.50:
        return _article(name)
    if kind < 0.70:
        return rng.choice(TEMPLATES).format(a=_article(name), n=name)
    if kind < 0.78:
        return f"{rng.choice(keywords)} {name}"
    if kind < 0.86:
        return ", ".join([name, *rng.sample(keywords, min(len(keywords), rng.randint(1, 3)))])
    if kind < 0.93:
        return emoji.unicode_name
    keyword = rng.choice(own_keywords or [name])
    return rng.choice([keyword, _article(keyword)])


def _cased(text: str, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.70:
        return text
    if kind < 0.80:
        return text.lower()
    if kind < 0.90:
        return text[0].upper() + text[1:]
    return text.upper() if kind < 0.95 else text.title()


def training_prompts(emoji: list[Emoji], seed: int = 0) -> list[list[str]]:
    """PROMPTS_PER_EMOJI prompts of each emoji; repeats weigh the commoner forms."""
    rng = random.Random(seed)
    names = {text.lower(): e.codepoint for e in emoji for text in (e.unicode_name, e.name)}
    uses = Counter(k.lower() for e in emoji for k in e.keywords)

    def is_own(phrase: str, e: Emoji) -> bool:
        bare = phrase.lower().removeprefix("a ").removeprefix("an ")
        return names.get(bare, e.codepoint) == e.codepoint

    bank = []
    for e in emoji:
        own_keywords = [k for k in e.keywords if uses[k.lower()] == 1 and is_own(k, e)]
        phrases: list[str] = []
        while len(phrases) < PROMPTS_PER_EMOJI:
            phrase = _phrase(e, own_keywords, rng)
            if is_own(phrase, e):
                phrases.append(_cased(phrase, rng))
        bank.append(phrases)
    return bank
