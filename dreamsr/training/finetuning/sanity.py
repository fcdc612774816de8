"""A picture drawn by code, to see what fine-tuning cost: what nets forget first when they learn a few pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dreamsr.core.pixels import Pixels

Plane = NDArray[np.float64]
"""[n,n], one value per pixel, or [n,n,3]."""

GLYPH_PX = 12
STROKES = 3


def sanity_picture(side: int) -> Pixels:
    """[side,side,3] uint8, always the same: slanted edges, colour gradients, text-like strokes, fine texture.

    One kind in each quarter; `side` is even, and 64 or more shows them all.
    """
    half = side // 2
    top = np.concatenate([_edges(half), _gradients(half)], axis=1)
    bottom = np.concatenate([_strokes(half), _texture(half)], axis=1)
    drawn: Pixels = (np.concatenate([top, bottom]).clip(0, 1) * 255).round().astype(np.uint8)
    return drawn  # [side,side,3]


def _grid(n: int) -> tuple[Plane, Plane]:
    """(y, x) of the middle of each pixel."""
    y, x = np.mgrid[0:n, 0:n] + 0.5
    return y, x


def _tinted(plane: Plane, dark: tuple[float, float, float], light: tuple[float, float, float]) -> Plane:
    """[n,n] -> [n,n,3]: from `dark` at 0 to `light` at 1."""
    mixed: Plane = plane[..., None] * np.array(light) + (1 - plane[..., None]) * np.array(dark)
    return mixed


def _edges(n: int) -> Plane:
    """Bars at a slant that grow narrower, with antialiased edges."""
    y, x = _grid(n)
    across = x + 0.35 * y
    period = 24 - 16 * y / n  # px, 24 on top, 8 at the bottom
    distance = (np.abs((across / period) % 1 - 0.5) - 0.25) * period  # px from the nearest edge
    return _tinted((distance + 0.5).clip(0, 1), (0.1, 0.15, 0.3), (0.95, 0.9, 0.8))


def _gradients(n: int) -> Plane:
    """Smooth changes of colour and brightness, in which banding and blotches would show."""
    y, x = _grid(n)
    red, green = 0.2 + 0.6 * x / n, 0.3 + 0.5 * y / n
    blue = 0.5 + 0.3 * np.cos(np.pi * (x + y) / n)
    return np.stack([red, green, blue], axis=2)


def _strokes(n: int) -> Plane:
    """Rows of thin dark strokes between the points of small lattices, as letters have them."""
    draw = np.random.default_rng(0)
    ink = np.zeros((n, n))
    y, x = _grid(GLYPH_PX)
    for top in range(2, n - GLYPH_PX, GLYPH_PX + 4):
        for left in range(2, n - GLYPH_PX, GLYPH_PX):
            ends = 2.0 + 4.0 * np.floor(draw.random((STROKES, 2, 2)) * 3)  # px, on a lattice of 3x3 points
            glyph = np.max([_segment(y, x, *pair) for pair in ends], axis=0)
            ink[top : top + GLYPH_PX, left : left + GLYPH_PX] = glyph
    return _tinted(ink, (0.97, 0.97, 0.95), (0.08, 0.08, 0.1))


def _segment(y: Plane, x: Plane, start: Plane, end: Plane) -> Plane:
    """How much of each pixel a line of 1.4 px between two points (y, x) covers."""
    along = end - start
    share = ((y - start[0]) * along[0] + (x - start[1]) * along[1]) / max(1e-9, float(along @ along))
    share = share.clip(0, 1)
    distance = np.hypot(y - start[0] - share * along[0], x - start[1] - share * along[1])
    covered: Plane = (1.2 - distance).clip(0, 1)
    return covered


def _texture(n: int) -> Plane:
    """A weave of two frequencies under grain: detail that a net must guess."""
    y, x = _grid(n)
    weave = 0.5 + 0.2 * np.sin(2 * np.pi * x / 5) * np.sin(2 * np.pi * y / 7) + 0.1 * np.sin(2 * np.pi * (x - y) / 11)
    grain = np.random.default_rng(1).random((n, n)) - 0.5
    return _tinted(weave + 0.25 * grain, (0.2, 0.1, 0.05), (0.8, 0.75, 0.6))
