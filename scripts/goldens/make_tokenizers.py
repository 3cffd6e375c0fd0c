#!/usr/bin/env python3
"""Makes tests/data/tokenizers: a Unigram model of every script, and transformers' ids for strings that are hard.

make_tokenizers.py             writes the folder anew (20 seconds)
make_tokenizers.py --check     writes it elsewhere and compares the bytes; exit status 1 where they differ
"""

import argparse
import filecmp
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
import transformers
from tiny_tokenizers import SENTENCES
from tokenizer_folders import FOLDERS, Folder
from tokenizer_strings import strings, training_text
from transformers import CLIPTokenizer, T5Tokenizer

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
FOLDER = DATA / "tokenizers"
CLASSES = {"clip": CLIPTokenizer, "t5": T5Tokenizer}
# Folders whose ids are kept as hashes, one for CHUNK strings.
TINY = {
    f"flux/{model}/{folder}": kind
    for model in ("tiny-dev", "tiny-schnell")
    for folder, kind in (("tokenizer", "clip"), ("tokenizer_2", "t5"))
}
CHUNK = 32
BLOCK = 256  # code points
BLOCKS = [block for block in (*range(0x340), *range(0xE00, 0xE10), 0x10FF) if not 0xD8 <= block < 0xE0]
# A code point alone, after a ligature that takes marks with it, and before and between marks.
CONTEXTS = ("{}", "\u00aa{}", "{}\u0301", "e\u0323{}\u0301", "\u0915\u094d{}\u0301", "\u2764\u200d{}\u0301", "\uac00{}")
FRAMED = {"clip": (2, 3, 8, 77), "t5": (1, 2, 8, 64, 256)}
FRAMED_PROMPTS = (
    "",
    "a photograph of a red fox asleep in fresh snow",
    "Ｆull ﬁne  Café №5\tПривет 灯台 🦊 it's ☕\u200d",  # noqa: RUF001
    "one two <|endoftext|> three </s> four <extra_id_3> five six seven eight",
    " ".join(["an old map of an island with two harbours, seven hills and a lighthouse,"] * 8),
)


def fnv(data: bytes, value: int = 0xCBF29CE484222325) -> int:
    """FNV-1a, 64 bits."""
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def hash_of(texts: Iterable[str]) -> str:
    return f"{fnv(chr(10).join(texts).encode()):016x}"


def ids_of(tokenizer: transformers.PreTrainedTokenizerBase, data: bytes) -> list[int]:
    return tokenizer(data.decode("utf-8", "replace"), add_special_tokens=False)["input_ids"]


def as_text(ids: list[int]) -> str:
    return " ".join(map(str, ids))


def write_json(path: Path, value: object) -> None:
    """One line for each element of the outermost list or object."""

    def dump(v: object) -> str:
        return json.dumps(v, separators=(",", ":"))

    if isinstance(value, dict):
        text = "{" + ",\n".join(f"{dump(k)}:{dump(v)}" for k, v in value.items()) + "}"
    else:
        text = "[" + ",\n".join(map(dump, value)) + "]"
    path.write_text(text + "\n", encoding="utf-8")


def train_unigram(path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*training_text(1), *SENTENCES, *SENTENCES]),
        model_writer=model,
        model_type="unigram",
        vocab_size=3000,
        normalization_rule_name="nmt_nfkc",
        character_coverage=0.995,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def make_blocks(tokenizers: dict) -> dict[str, list]:
    """For each block of code points, hashes of NFC and lower case, of the precompiled normaliser, and of CLIP's ids."""
    clip, t5 = tokenizers["clip"].backend_tokenizer, tokenizers["t5"].backend_tokenizer
    rows = {"blocks": BLOCKS, "contexts": CONTEXTS, "clip_normalizer": [], "t5_normalizer": [], "clip_ids": []}
    for block in BLOCKS:
        points = [chr(c) for c in range(block * BLOCK, (block + 1) * BLOCK)]
        texts = [context.format(c) for context in CONTEXTS for c in points]
        rows["clip_normalizer"].append(hash_of(map(clip.normalizer.normalize_str, texts)))
        rows["t5_normalizer"].append(hash_of(map(t5.normalizer.normalize_str, texts)))
        ids = (ids_of(tokenizers["clip"], f"{c}a{c}1{c} {c}".encode()) for c in points)
        rows["clip_ids"].append(hash_of(map(as_text, ids)))
    return rows


def framed(tokenizer: transformers.PreTrainedTokenizerBase, prompt: str, length: int) -> dict:
    """Padded or cut ids, as diffusers asks for them, and what was cut."""
    ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=length)["input_ids"]
    whole = tokenizer(prompt)["input_ids"]
    cut = whole[length - 1 : -1] if len(whole) > length else []
    decoded = tokenizer.decode(cut, clean_up_tokenization_spaces=False) if cut else ""
    return {"prompt": prompt, "ids": ids, "used": min(len(whole), length), "cut": decoded}


def make_folder(folder: Folder, scratch: Path) -> dict:
    """The folder, and what transformers makes of it."""
    path = scratch / f"{folder.kind}-{folder.name}"
    shutil.copytree(DATA / folder.base, path)
    for name, value in folder.files.items():
        if value is None:
            (path / name).unlink()
        else:
            (path / name).write_text(json.dumps(value), encoding="utf-8")
    tokenizer = CLASSES[folder.kind].from_pretrained(path)
    return {
        "name": path.name,
        "kind": folder.kind,
        "base": folder.base,
        "files": folder.files,
        "size": len(tokenizer),
        "prompts": [[prompt, ids_of(tokenizer, prompt.encode())] for prompt in folder.prompts],
        "framed": framed(tokenizer, folder.prompts[0], 16),
    }


def write_clip_vocabulary(folder: Path) -> Path:
    subprocess.run([sys.executable, Path(__file__).with_name("clip_vocabulary.py"), folder], check=True)
    return folder


def make(folder: Path, scratch: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "t5").mkdir(parents=True)
    train_unigram(folder / "t5" / "spiece.model")
    clip_folder = write_clip_vocabulary(scratch / "clip-vocabulary")
    tokenizers = {"clip": CLIPTokenizer.from_pretrained(clip_folder), "t5": T5Tokenizer.from_pretrained(folder / "t5")}
    all_strings = strings(seed=1, mixtures=700, prompts=350, invalids=150)
    print(f"{len(all_strings)} strings")
    write_json(folder / "strings.json", [data.hex() for data in all_strings])
    for kind, tokenizer in tokenizers.items():
        write_json(folder / f"ids-{kind}.json", [ids_of(tokenizer, data) for data in all_strings])
        rows = [framed(tokenizer, prompt, length) for prompt in FRAMED_PROMPTS for length in FRAMED[kind]]
        write_json(folder / f"framed-{kind}.json", rows)
    hashes = {}
    for name, kind in TINY.items():
        tokenizer = CLASSES[kind].from_pretrained(DATA / name)
        ids = [as_text(ids_of(tokenizer, data)) for data in all_strings]
        hashes[name] = [hash_of(ids[i : i + CHUNK]) for i in range(0, len(ids), CHUNK)]
    write_json(folder / "hashes.json", hashes)
    write_json(folder / "blocks.json", make_blocks(tokenizers))
    write_json(folder / "folders.json", [make_folder(f, scratch) for f in FOLDERS])
    print(f"{sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())} bytes")


def check(fresh: Path) -> bool:
    made, kept = ({f.relative_to(root) for f in root.rglob("*") if f.is_file()} for root in (fresh, FOLDER))
    same = [name for name in made & kept if filecmp.cmp(fresh / name, FOLDER / name, shallow=False)]
    differing = sorted(str(name) for name in (made | kept) - set(same))
    print("\n".join(f"differs: {name}" for name in differing) or f"{len(same)} files are the same")
    return not differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        make(scratch / "made" if arguments.check else FOLDER, scratch)
        return 0 if not arguments.check or check(scratch / "made") else 1


if __name__ == "__main__":
    sys.exit(main())
