"""A large image in overlapping tiles, blended by weights that sum to one everywhere.

Neighbouring tiles share `overlap` pixels. The outer part of that band is computed for context only and
thrown away; in its middle one tile fades into the next. Results leave as finished strips, so memory holds
two rows of tiles and not the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

OVERLAP_PX = 32
FADE_PX = 8
ALIGN_PX = 8


@dataclass(frozen=True)
class Window:
    """One tile along one axis: pixels start..stop of the small image."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def windows(size: int, tile: int, overlap: int = OVERLAP_PX) -> list[Window]:
    """The fewest windows of at most `tile` that cover 0..size, evenly spaced, neighbours sharing `overlap` pixels.

    All start on multiples of `ALIGN_PX`: the net halves its grid, and a tile must halve it where the whole would.
    Raises ValueError where a tile would not reach beyond two overlaps.
    """
    if size <= tile:
        return [Window(0, size)]
    longest_step = (tile - overlap) // ALIGN_PX * ALIGN_PX
    if longest_step <= overlap:
        raise ValueError(f"tiles of {tile} px cannot overlap by {overlap} px; use {2 * overlap + ALIGN_PX} or more")
    steps = -(-(size - overlap) // longest_step)
    even_step = -(-(size - overlap) // (steps * ALIGN_PX)) * ALIGN_PX
    starts = range(0, size - overlap, even_step)
    return [Window(start, min(size, start + even_step + overlap)) for start in starts]


def fade(window: Window, size: int, scale: int, overlap: int = OVERLAP_PX, ramp: int = FADE_PX) -> Tensor:
    """[scale * window.size] float32 weights of one window; over all windows they sum to 1 at every pixel."""
    position = torch.arange(scale * window.size, dtype=torch.float32) + 0.5
    dead = scale * (overlap - ramp) / 2
    rise = ((position - dead) / (scale * ramp)).clamp(0, 1)
    fall = ((scale * window.size - position - dead) / (scale * ramp)).clamp(0, 1)
    weight = torch.ones_like(position)
    weight = weight * rise if window.start > 0 else weight
    return weight * fall if window.stop < size else weight


@dataclass(frozen=True)
class Strip:
    """Finished rows of the large image: pixels [3,n,W] float32 from row `top` on."""

    top: int
    pixels: Tensor


Compute = Callable[[Window, Window], Tensor]
"""(rows, columns) of the small image -> [3, scale*rows, scale*columns] of the large one."""


def blend(height: int, width: int, *, scale: int, tile: int, compute: Compute) -> Iterator[Strip]:
    """Run `compute` over all tiles of a height x width image, row by row, and yield finished strips downward."""
    columns = windows(width, tile)
    waiting: Tensor | None = None  # the lower end of the rows above, already weighted
    for row in windows(height, tile):
        band = _blend_row(row, columns, width, scale, compute)
        band = band * fade(row, height, scale)[None, :, None]
        if waiting is not None:
            band[:, : waiting.shape[1]] += waiting
        ready = scale * (row.size if row.stop == height else row.size - OVERLAP_PX)
        waiting = band[:, ready:].clone()
        yield Strip(scale * row.start, band[:, :ready])


def _blend_row(row: Window, columns: list[Window], width: int, scale: int, compute: Compute) -> Tensor:
    """One row of tiles, blended sideways only: [3, scale*row.size, scale*width]."""
    band = torch.zeros(3, scale * row.size, scale * width)
    for column in columns:
        piece = compute(row, column) * fade(column, width, scale)
        band[:, :, scale * column.start : scale * column.stop] += piece
    return band
