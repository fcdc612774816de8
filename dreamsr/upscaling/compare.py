"""A page with a slider between plain bicubic and the result: one file, no network, nothing to install."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, StrictUndefined

from dreamsr.disk import write_bytes_atomically
from dreamsr.pictures.bleed import bleed
from dreamsr.pictures.lanczos import resized
from dreamsr.pictures.picture import Metadata, Picture, to_8_bit
from dreamsr.pictures.write import encode_picture

if TYPE_CHECKING:
    from dreamsr.core.pixels import Pixels

WHOLE_UP_TO_PX = 2048
CROP_PX = (1200, 1600)
"""Height and width of what is shown of larger results, pixel by pixel: shrinking them would hide the difference."""
QUALITY = 92
PAGE = Path(__file__).with_suffix(".html")
"""The template of the page; whatever a picture brings is escaped."""


@dataclass(frozen=True)
class Slider:
    """Two pictures of one size, as WebP files, and what to write above them."""

    title: str
    caption: str
    before: bytes
    after: bytes
    width: int
    height: int


def make_slider(title: str, small: Picture, large: Picture) -> Slider:
    """The whole of `large`, or its most detailed part, and the same part of `small` by bicubic."""
    top, left, height, width = _part(small, large)
    y, x = small.height / large.height, small.width / large.width
    box = (left * x, top * y, (left + width) * x, (top + height) * y)
    pixels = small.pixels if small.alpha is None else bleed(small.pixels, small.alpha)
    before = replace(
        small,
        pixels=resized(pixels, height, width, box=box, kernel="bicubic"),
        alpha=None
        if small.alpha is None
        else resized(small.alpha[..., None], height, width, box=box, kernel="bicubic")[..., 0],
    )
    window = slice(top, top + height), slice(left, left + width)
    after = replace(large, pixels=large.pixels[window], alpha=None if large.alpha is None else large.alpha[window])
    size = f"{small.width}\u2009×\u2009{small.height} → {large.width}\u2009×\u2009{large.height} px"
    whole = (height, width) == (large.height, large.width)
    return Slider(title, size if whole else f"{size}, a part", _webp(before), _webp(after), width, height)


def _part(small: Picture, large: Picture) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels of `large`."""
    if max(large.height, large.width) <= WHOLE_UP_TO_PX:
        return 0, 0, large.height, large.width
    height, width = min(CROP_PX[0], large.height), min(CROP_PX[1], large.width)
    y, x = large.height / small.height, large.width / small.width
    top, left = _most_detailed(small.pixels, max(1, int(height / y)), max(1, int(width / x)))
    return min(round(top * y), large.height - height), min(round(left * x), large.width - width), height, width


def _most_detailed(pixels: Pixels, height: int, width: int) -> tuple[int, int]:
    """Where the window of height x width with the largest sum of gradients begins."""
    grey = pixels.mean(axis=2, dtype=np.float32)
    detail = np.abs(np.diff(grey, axis=0, append=grey[-1:])) + np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    sums = np.pad(detail.cumsum(axis=0, dtype=np.float64).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left)


def _webp(picture: Picture) -> bytes:
    """An 8-bit WebP in sRGB, so that every browser shows the same."""
    eight = replace(
        picture,
        pixels=np.ascontiguousarray(to_8_bit(picture.pixels)),
        alpha=None if picture.alpha is None else np.ascontiguousarray(to_8_bit(picture.alpha)),
        metadata=Metadata(icc=picture.metadata.icc),
    )
    return encode_picture(eight, format="WEBP", quality=QUALITY, strip=True)


def write_page(path: Path, sliders: Sequence[Slider]) -> None:
    """One self-contained HTML file with all sliders. Raises OutputError."""
    html = Environment(autoescape=True, keep_trailing_newline=True, undefined=StrictUndefined)
    html.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    text = html.from_string(PAGE.read_text(encoding="utf-8")).render(sliders=sliders)
    write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))
