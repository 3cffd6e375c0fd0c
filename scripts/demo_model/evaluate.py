#!/usr/bin/env python3
"""Measures whether pictures show what was asked for: each should be nearest to its own glyph among all of them.

evaluate.py PICTURES                  PICTURES holds a PNG an emoji, named by codepoint (1f98a.png) or place (0.png)
evaluate.py PICTURES --generate MODEL first makes them with diffusers from the emoji's names
evaluate.py --list                    prints codepoint, tab, name of each emoji
evaluate.py --batch > emoji.jsonl     prints what `xdit-gen batch emoji.jsonl -s 0 -o 'PICTURES/{index}.png'` takes
--every N                             leaves out all but every Nth emoji, in each of these

Distance: mean squared RGB difference after a box filter to 32 x 32. Exit status 1 under 90 %.
apt-get install fonts-noto-color-emoji
"""

import argparse
import json
import sys
from pathlib import Path

import glyphs
import numpy as np
from PIL import Image

LEAST_PICTURES = 300
LEAST_ACCURACY = 0.90


def picture_of(folder: Path, emoji: glyphs.Emoji, place: int) -> Path | None:
    paths = (folder / f"{name}.png" for name in (emoji.codepoint, place))
    return next((path for path in paths if path.exists()), None)


def generate(model: Path, folder: Path, call: dict, emoji: list[glyphs.Emoji], device: str) -> None:
    """Asks the pipeline that the folder names; call replaces its recommended arguments where not None."""
    import torch
    from architectures import of_pipeline
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(model, dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    call = of_pipeline(type(pipeline).__name__).CALL | {k: v for k, v in call.items() if v is not None}
    folder.mkdir(parents=True, exist_ok=True)
    for one in emoji:
        picture = pipeline(one.name, height=128, width=128, generator=torch.Generator().manual_seed(0),
                           **call).images[0]
        picture.save(folder / f"{one.codepoint}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="?")
    parser.add_argument("--font", type=Path, default=glyphs.FONT)
    parser.add_argument("--generate", type=Path, metavar="MODEL")
    parser.add_argument("--steps", type=int, help="16 for FLUX, 20 for SDXL if not said")
    parser.add_argument("--guidance", type=float, help="0 for FLUX, 2 for SDXL if not said")
    parser.add_argument("--count", type=int, default=10000, help="generate the first COUNT emoji only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--batch", action="store_true")
    arguments = parser.parse_args()

    emoji = glyphs.read_list()
    asked = range(0, len(emoji), arguments.every)
    if arguments.list or arguments.batch:
        for e in (emoji[i] for i in asked):
            print(json.dumps({"prompt": e.name}, ensure_ascii=False) if arguments.batch else f"{e.codepoint}\t{e.name}")
        return 0
    if arguments.pictures is None:
        parser.error("give the folder of the pictures, --list or --batch")
    if arguments.generate:
        call = {"num_inference_steps": arguments.steps, "guidance_scale": arguments.guidance}
        first = [emoji[i] for i in asked][:arguments.count]
        generate(arguments.generate, arguments.pictures, call, first, arguments.device)

    paths = {i: path for place, i in enumerate(asked) if (path := picture_of(arguments.pictures, emoji[i], place))}
    found = list(paths)
    if not found:
        print(f"no pictures named by codepoint or place in {arguments.pictures}", file=sys.stderr)
        return 1
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths.values()])
    nearest = glyphs.distances(pictures, glyphs.render_all(arguments.font)).argmin(axis=1)
    for i, j in zip(found, nearest):
        if i != j:
            print(f"{emoji[i].codepoint} {emoji[i].name}: nearest to {emoji[j].name}")
    accuracy = float(np.mean(nearest == found))
    print(f"{accuracy:.1%} of {len(found)} pictures are nearest to their own of {len(emoji)} glyphs")
    if len(found) < (least := LEAST_PICTURES // arguments.every):
        print(f"too few pictures: {len(found)} of at least {least}", file=sys.stderr)
        return 1
    return 0 if accuracy >= LEAST_ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
