#!/usr/bin/env python3
"""Renders the glyphs, trains the tokenizers and packs both for train.py.

apt-get install fonts-noto-color-emoji
pip install transformers sentencepiece protobuf pillow
prepare.py --out .train
"""

import argparse
import json
from pathlib import Path

import glyphs
import numpy as np
import prompts
import tokenizers_train as tokens

MODEL_INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.31.0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SCHEDULER = {  # as FLUX.1-schnell: a fixed shift
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.31.0",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
}


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for data.npz and model/")
    parser.add_argument("--font", type=Path, default=glyphs.FONT)
    arguments = parser.parse_args()

    emoji = glyphs.read_list()
    bank = prompts.training_prompts(emoji)
    texts = [text for phrases in bank for text in phrases]
    model = arguments.out / "model"
    clip = tokens.save_clip(texts, model / "tokenizer")
    t5 = tokens.save_t5(texts, model / "tokenizer_2")
    write_json(model / "model_index.json", MODEL_INDEX)
    write_json(model / "scheduler" / "scheduler_config.json", SCHEDULER)

    def ids(tokenizer, texts: list[str], length: int) -> np.ndarray:
        rows = tokenizer(texts, padding="max_length", max_length=length, truncation=True)["input_ids"]
        return np.array(rows, dtype=np.int16)

    longest = {"clip": max(map(len, clip(texts)["input_ids"])), "t5": max(map(len, t5(texts)["input_ids"]))}
    shape = (len(emoji), prompts.PROMPTS_PER_EMOJI, -1)
    # The causal CLIP pools at the first end token, so what follows it need not be computed in training.
    np.savez_compressed(
        arguments.out / "data.npz",
        glyphs=glyphs.render_all(arguments.font),
        clip_ids=ids(clip, texts, longest["clip"]).reshape(shape),
        t5_ids=ids(t5, texts, tokens.T5_LENGTH).reshape(shape),
        clip_empty=ids(clip, [""], longest["clip"])[0],
        t5_empty=ids(t5, [""], tokens.T5_LENGTH)[0],
        clip_names=ids(clip, [e.name for e in emoji], longest["clip"]),
        t5_names=ids(t5, [e.name for e in emoji], tokens.T5_LENGTH),
        sizes=np.array([len(clip), len(t5)]))
    print(f"{len(emoji)} emoji, {len(set(texts))} prompts; vocabularies {len(clip)}, {len(t5)}; "
          f"longest prompt in tokens {longest}; {(arguments.out / 'data.npz').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
