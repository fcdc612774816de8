"""Pictures side by side under captions, as one PNG that shows at a glance what figures do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from dreamsr.core.pixels import Pixels

GAP_PX = 4
CAPTION_PX = 18
FONT_PX = 12


@dataclass(frozen=True)
class Column:
    """A caption, and below it one picture [H,W,3] uint8 for each row of the grid."""

    caption: str
    pictures: Sequence[Pixels]


def sample_grid(columns: Sequence[Column]) -> bytes:
    """A PNG of all columns on white, each as wide as its widest picture or its caption, pictures left and on top."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_PX)
    widths = [
        max(int(np.ceil(font.getlength(column.caption))), *(picture.shape[1] for picture in column.pictures))
        for column in columns
    ]
    rows = zip(*(column.pictures for column in columns), strict=True)
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    lefts, width = _starts(widths, GAP_PX)
    tops, height = _starts(heights, GAP_PX + CAPTION_PX)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for left, column in zip(lefts, columns, strict=True):
        draw.text((left, GAP_PX), column.caption, fill="black", font=font)
        for top, picture in zip(tops, column.pictures, strict=True):
            sheet.paste(Image.fromarray(picture), (left, top))
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def blown_up(low: Pixels, scale: int) -> Pixels:
    """[h,w,C] -> [s*h,s*w,C] by repeating each pixel: what the net was really given."""
    return low.repeat(scale, axis=0).repeat(scale, axis=1)


def _starts(sizes: Sequence[int], first: int) -> tuple[list[int], int]:
    """Where each of `sizes` begins, GAP_PX apart from `first` on, and where all of them end with a gap."""
    starts, place = [], first
    for size in sizes:
        starts.append(place)
        place += size + GAP_PX
    return starts, place
