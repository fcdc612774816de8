"""A large image in overlapping tiles, blended by weights that sum to one everywhere.

Neighbouring tiles share `overlap_px` pixels. The outer part of that band is computed for context only and
thrown away; in its middle one tile fades into the next. Results leave as finished patches, so memory holds
the lower edges of one row of tiles and not the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

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
class Tile:
    """One tile: its rows and columns of the small image."""

    rows: Window
    columns: Window


def tiles(height: int, width: int, *, scale: Fraction | int, tile: int) -> Iterator[Tile]:
    """The tiles of a height x width image, row by row; both sides times `scale` must be whole."""
    align = align_px(scale)
    columns = windows(width, tile, align=align)
    for row in windows(height, tile, align=align):
        for column in columns:
            yield Tile(row, column)


@dataclass(frozen=True)
class Patch:
    """A finished part of the large image: pixels [3,n,m] float32, its upper left corner at row `top`, column `left`."""

    top: int
    left: int
    pixels: Tensor


def blend(results: Iterable[tuple[Tile, Tensor]], height: int, width: int, *, scale: Fraction | int) -> Iterator[Patch]:
    """Results [3, scale*rows, scale*columns] of all `tiles`, in their order -> patches without gap, in that order.

    Each patch leaves as soon as its own tile has come.
    """
    overlap = int(scale * overlap_px(align_px(scale)))
    above: Tensor | None = None  # the lower edges of the row of tiles above, faded
    for row, tiles_of_row in groupby(results, key=lambda result: result[0].rows):
        tall = row.enlarged(scale).size
        ready_down = tall if row.stop == height else tall - overlap
        below = torch.empty(3, tall - ready_down, int(scale * width))
        beside: Tensor | None = None  # the right edge of the tile to the left, faded
        rows_fade = fade(row, height, scale)[:, None]
        for tile, pixels in tiles_of_row:
            place = tile.columns.enlarged(scale)
            faded = pixels * (rows_fade * fade(tile.columns, width, scale))  # [3,scale*rows,scale*columns]
            ready = place.size if tile.columns.stop == width else place.size - overlap
            columns = slice(place.start, place.start + ready)
            if beside is not None:
                faded[..., :overlap] += beside
            beside = faded[..., ready:]
            if above is not None:
                faded[:, :overlap, :ready] += above[..., columns]
            below[..., columns] = faded[:, ready_down:, :ready]
            yield Patch(row.enlarged(scale).start, place.start, faded[:, :ready_down, :ready])
        above = below
