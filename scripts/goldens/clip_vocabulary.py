#!/usr/bin/env python3
"""clip_vocabulary.py FOLDER writes CLIP's vocab.json and merges.txt, as published, from PyPI's open_clip_torch."""

import gzip
import json
import sys
from importlib.util import find_spec
from pathlib import Path

MERGES = 49408 - 2 * 256 - 2  # the list goes on, but CLIP stops here
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


def merge_lines() -> list[str]:
    package = find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        sys.exit("clip_vocabulary.py: no open_clip: python3 -m pip install --no-deps open_clip_torch")
    path = Path(package.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    return gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]


def main() -> None:
    folder = Path(sys.argv[1])
    merges = merge_lines()
    letters = [chr(b) for b in PRINTABLE] + [chr(256 + i) for i in range(256 - len(PRINTABLE))]
    pieces = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    assert len(vocabulary) == 49408
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
