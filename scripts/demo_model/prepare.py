#!/usr/bin/env python3
"""Renders the glyphs, trains the tokenizers and packs both for train.py.

apt-get install fonts-noto-color-emoji
pip install torch 'diffusers>=0.42' transformers sentencepiece protobuf pillow
prepare.py --model flux --out .train
"""

import argparse
import json
from pathlib import Path

import glyphs
import numpy as np
import prompts
from architectures import ARCHITECTURES


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=ARCHITECTURES, default="flux")
    parser.add_argument("--out", type=Path, required=True, help="folder for data.npz and model/")
    parser.add_argument("--font", type=Path, default=glyphs.FONT)
    arguments = parser.parse_args()

    emoji = glyphs.read_list()
    bank = prompts.training_prompts(emoji)
    texts = [text for phrases in bank for text in phrases]
    architecture, model = ARCHITECTURES[arguments.model], arguments.out / "model"
    tokenizers = architecture.save_tokenizers(texts, model)
    write_json(model / "model_index.json", architecture.MODEL_INDEX)
    write_json(model / "scheduler" / "scheduler_config.json", architecture.SCHEDULER)

    arrays = {}
    for name, (tokenizer, length) in tokenizers.items():
        def ids(texts: list[str], tokenizer=tokenizer, length=length) -> np.ndarray:
            rows = tokenizer(texts, padding="max_length", max_length=length, truncation=True)["input_ids"]
            return np.array(rows, dtype=np.int16)

        arrays[f"{name}_ids"] = ids(texts).reshape(len(emoji), prompts.PROMPTS_PER_EMOJI, -1)
        arrays[f"{name}_empty"] = ids([""])[0]
        arrays[f"{name}_names"] = ids([e.name for e in emoji])
    sizes = {name: len(tokenizer) for name, (tokenizer, _) in tokenizers.items()}
    longest = {name: max(map(len, tokenizer(texts)["input_ids"])) for name, (tokenizer, _) in tokenizers.items()}
    np.savez_compressed(arguments.out / "data.npz", glyphs=glyphs.render_all(arguments.font),
                        sizes=np.array(list(sizes.values())), **arrays)
    print(f"{len(emoji)} emoji, {len(set(texts))} prompts; vocabularies {sizes}; "
          f"longest prompt in tokens {longest}; {(arguments.out / 'data.npz').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
