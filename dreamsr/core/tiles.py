"""A large image in overlapping tiles, blended by weights that sum to one everywhere.

Neighbouring tiles share `overlap_px` pixels. The outer part of that band is computed for context only and
thrown away; in its middle one tile fades into the next. Results leave as finished strips, so memory holds
two rows of tiles and not the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

OVERLAP_PX = 32
FADE_PX = 8
ALIGN_PX = 8


def align_px(scale: Fraction | int) -> int:
    """Tiles start on multiples of this many px: where nets halve their grid, and where `scale` gives whole pixels."""
    return math.lcm(ALIGN_PX, scale.denominator)


def overlap_px(align: int = ALIGN_PX) -> int:
    """How many px neighbours share: `OVERLAP_PX`, or the next multiple of `align`, so that tiles also end on one."""
    return -(-OVERLAP_PX // align) * align


def smallest_tile_px(align: int = ALIGN_PX) -> int:
    """Two overlaps and one step: less would be all overlap."""
    return 2 * overlap_px(align) + align


@dataclass(frozen=True)
class Window:
    """One tile along one axis: pixels start..stop of the small image."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def enlarged(self, scale: Fraction | int) -> Window:
        """The same tile in pixels of the large image; whole, as tiles lie on the grid of `align_px`."""
        return Window(int(scale * self.start), int(scale * self.stop))


def windows(size: int, tile: int, *, align: int = ALIGN_PX) -> list[Window]:
    """The fewest windows of at most `tile` that cover 0..size, evenly spaced, neighbours sharing `overlap_px`.

    All start on multiples of `align`: the net halves its grid, and a tile must halve it where the whole would.
    Raises ValueError where a tile would not reach beyond two overlaps.
    """
    if size <= tile:
        return [Window(0, size)]
    overlap = overlap_px(align)
    longest_step = (tile - overlap) // align * align
    if longest_step <= overlap:
        raise ValueError(f"tiles of {tile} px cannot overlap by {overlap} px; use {smallest_tile_px(align)} or more")
    steps = -(-(size - overlap) // longest_step)
    even_step = -(-(size - overlap) // (steps * align)) * align
    starts = range(0, size - overlap, even_step)
    return [Window(start, min(size, start + even_step + overlap)) for start in starts]


def fade(window: Window, size: int, scale: Fraction | int, *, ramp: int = FADE_PX) -> Tensor:
    """[scale * window.size] float32 weights of one window; over all windows they sum to 1 at every pixel."""
    length = window.enlarged(scale).size
    position = torch.arange(length, dtype=torch.float32) + 0.5
    dead = float(scale * (overlap_px(align_px(scale)) - ramp) / 2)
    rise = ((position - dead) / float(scale * ramp)).clamp(0, 1)
    fall = ((length - position - dead) / float(scale * ramp)).clamp(0, 1)
    weight = torch.ones_like(position)
    weight = weight * rise if window.start > 0 else weight
    return weight * fall if window.stop < size else weight


@dataclass(frozen=True)
class Strip:
    """Finished rows of the large image: pixels [3,n,W] float32 from row `top` on."""

    top: int
    pixels: Tensor


WindowWork = Callable[[Window, Window], Tensor]
"""(rows, columns) of the small image -> [3, scale*rows, scale*columns] of the large one."""


def blend(height: int, width: int, *, scale: Fraction | int, tile: int, compute: WindowWork) -> Iterator[Strip]:
    """Run `compute` over all tiles of a height x width image, row by row, and yield finished strips downward.

    height * scale and width * scale must be whole.
    """
    align = align_px(scale)
    columns = windows(width, tile, align=align)
    waiting: Tensor | None = None  # the lower end of the rows above, already weighted
    for row in windows(height, tile, align=align):
        band = _blend_row(row, columns, width, scale, compute)
        band = band * fade(row, height, scale)[None, :, None]
        if waiting is not None:
            band[:, : waiting.shape[1]] += waiting
        ready = int(scale * (row.size if row.stop == height else row.size - overlap_px(align)))
        waiting = band[:, ready:].clone()
        yield Strip(row.enlarged(scale).start, band[:, :ready])


def _blend_row(row: Window, columns: list[Window], width: int, scale: Fraction | int, compute: WindowWork) -> Tensor:
    """One row of tiles, blended sideways only: [3, scale*row.size, scale*width]."""
    band = torch.zeros(3, row.enlarged(scale).size, int(scale * width))
    for column in columns:
        place = column.enlarged(scale)
        band[:, :, place.start : place.stop] += compute(row, column) * fade(column, width, scale)
    return band
