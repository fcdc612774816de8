"""A page with a slider between plain bicubic and the result: one file, no network, nothing to install."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dreamsr.core.pixels import most_detailed
from dreamsr.disk import append_bytes, write_bytes_atomically
from dreamsr.errors import OutputError, printable
from dreamsr.html import encoded, template
from dreamsr.pictures.bleed import bleed
from dreamsr.pictures.lanczos import resized
from dreamsr.pictures.picture import Metadata, Picture, to_8_bit
from dreamsr.pictures.write import encode_picture

WHOLE_UP_TO_PX = 2048
CROP_PX = (1200, 1600)
"""Height and width of what is shown of larger results, pixel by pixel: shrinking them would hide the difference."""
QUALITY = 92
PAGE = Path(__file__).with_suffix(".html")
FIGURE_END = b"</figure>\n"
CHUNK_BYTES = 1 << 24


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
    top, left = most_detailed(small.pixels, max(1, int(height / y)), max(1, int(width / x)))
    return min(round(top * y), large.height - height), min(round(left * x), large.width - width), height, width


def _webp(picture: Picture) -> bytes:
    """An 8-bit WebP in sRGB, so that every browser shows the same."""
    eight = replace(
        picture,
        pixels=np.ascontiguousarray(to_8_bit(picture.pixels)),
        alpha=None if picture.alpha is None else np.ascontiguousarray(to_8_bit(picture.alpha)),
        metadata=Metadata(icc=picture.metadata.icc),
    )
    return encode_picture(eight, format="WEBP", quality=QUALITY, strip=True)


class ComparePage:
    """The page while pictures are finished: whole after each of them, so that an interrupted batch keeps it.

    Nothing is held in memory. `goes_on` adds to the page that is there, which must be one (`is_page`). `part` holds
    pictures alone, which another process's page will take in.
    """

    def __init__(self, path: Path, *, goes_on: bool = False, part: bool = False) -> None:
        self.path = path
        self.head = b"" if part else _head()
        self.begun = goes_on and _cut_to_whole(path)
        self.error: OutputError | None = None

    def add(self, slider: Slider) -> None:
        """One more picture. What keeps the page from being written keeps no picture: it is raised at the end."""
        if self.error is None:
            try:
                self._append(encoded(_macros().figure(slider)))
            except OutputError as error:
                self.error = error

    def take_in(self, part: Path) -> None:
        """The pictures of another process's part, which is gone then. Raises OutputError."""
        try:
            with part.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    self._append(chunk)
            part.unlink()
        except OSError as error:
            raise OutputError(f"{printable(part)} cannot be read: {error.strerror}; the page lacks pictures") from None

    def finish(self) -> None:
        """Say so where there was nothing to show. Raises OutputError where the page could not be written."""
        if self.error is not None:
            raise self.error
        if not self.begun:
            self._append(encoded(_macros().empty()))

    def _append(self, data: bytes) -> None:
        if self.begun:
            append_bytes(self.path, data)
        else:
            write_bytes_atomically(self.path, self.head + data)
        self.begun = True


def is_page(path: Path) -> bool:
    """Whether a file is a compare page that this version has written, to which it can add."""
    try:
        with path.open("rb") as file:
            return file.read(len(_head())) == _head()
    except OSError:
        return False


def _cut_to_whole(path: Path) -> bool:
    """Drop what a killed writer left of a last picture; whether any picture is left. Raises OutputError."""
    try:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            end = view.rfind(FIGURE_END) + len(FIGURE_END)
        if end < len(FIGURE_END):
            return False
        os.truncate(path, end)
    except OSError as error:
        raise OutputError(f"{printable(path)} cannot be added to: {error.strerror}; choose another page") from None
    return True


@cache
def _macros() -> Any:
    """The macros of the template."""
    return template(PAGE).module


@cache
def _head() -> bytes:
    return encoded(_macros().head())
