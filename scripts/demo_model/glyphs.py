"""The demo model's emoji: their list, their glyphs as pictures, and the distance between pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")  # Debian: fonts-noto-color-emoji
STRIKE_SIZE = 109  # pixels per em of the font's only bitmap strike (136 x 128)
PICTURE_SIZE = 128
CANVAS_SIZE = 140  # a glyph is at most 128 wide: scaled to the picture it keeps a margin of 5 pixels


@dataclass(frozen=True)
class Emoji:
    codepoint: str  # lower-case hexadecimal
    name: str  # CLDR short name
    unicode_name: str
    keywords: tuple[str, ...]


def read_list() -> list[Emoji]:
    lines = Path(__file__).with_name("emoji.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [Emoji(code, name, unicode_name, tuple(k for k in keywords.split("|") if k))
            for code, name, unicode_name, keywords in rows]


def render(emoji: Emoji, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """The glyph centred on white, [128, 128, 3] uint8."""
    strike = Image.new("RGBA", (136, 128))
    ImageDraw.Draw(strike).text((0, 0), chr(int(emoji.codepoint, 16)), font=font, embedded_color=True)
    glyph = strike.crop(strike.getbbox())
    canvas = Image.new("RGBA", (CANVAS_SIZE, CANVAS_SIZE), "white")
    canvas.alpha_composite(glyph, ((CANVAS_SIZE - glyph.width) // 2, (CANVAS_SIZE - glyph.height) // 2))
    return np.asarray(canvas.convert("RGB").resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS))


def render_all(font_path: Path = FONT) -> np.ndarray:
    """All glyphs in the order of the list, [N, 128, 128, 3] uint8."""
    font = ImageFont.truetype(str(font_path), STRIKE_SIZE)
    return np.stack([render(emoji, font) for emoji in read_list()])


def distances(pictures: np.ndarray, glyphs: np.ndarray) -> np.ndarray:
    """Mean squared RGB difference (0..1) after a box filter to 32 x 32: [P, H, W, 3], [N, H, W, 3] -> [P, N]."""
    def small(images: np.ndarray) -> np.ndarray:
        count, height, width, _ = images.shape
        cells = images.reshape(count, 32, height // 32, 32, width // 32, 3).astype(np.float32) / 255
        return cells.mean(axis=(2, 4)).reshape(count, -1)

    a, b = small(pictures), small(glyphs)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.maximum(squares, 0) / a.shape[1]
