#!/usr/bin/env python3
"""Tiles pictures with their names: contact_sheet.py OUT.png PICTURE.png... [--columns 10] [--size 128]

A picture named by an emoji's codepoint is captioned with the emoji's name, any other with its file name.
"""

import argparse
from pathlib import Path

import glyphs
from PIL import Image, ImageDraw, ImageFont

CAPTION_HEIGHT = 18


def fitted(text: str, width: int, font: ImageFont.ImageFont) -> str:
    """The text, cut with dots where it is wider than width pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--size", type=int, default=128, help="pixels of one picture")
    arguments = parser.parse_args()

    names = {e.codepoint: e.name for e in glyphs.read_list()}
    font = ImageFont.load_default(12)
    cell_width, cell_height = arguments.size + 8, arguments.size + CAPTION_HEIGHT + 4
    columns = min(arguments.columns, len(arguments.pictures))
    rows = -(-len(arguments.pictures) // columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, path in enumerate(arguments.pictures):
        left, top = index % columns * cell_width + 4, index // columns * cell_height + 2
        picture = Image.open(path).convert("RGB").resize((arguments.size,) * 2, Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, top))
        caption = fitted(names.get(path.stem, path.stem), arguments.size, font)
        middle = (left + arguments.size / 2, top + arguments.size + 2)
        draw.text(middle, caption, fill="#444444", font=font, anchor="ma")
    sheet.save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
