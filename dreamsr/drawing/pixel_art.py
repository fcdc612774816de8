"""Drawn pictures: sprites and tiles of few colours, each pixel a block of 1 to 8 px with hard edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dreamsr.drawing.canvas import Canvas
from dreamsr.drawing.fonts import sized

BLOCKS_PX = (1, 2, 3, 4, 4, 4, 5, 6, 8)
"""A block of 4 is a pixel of the small picture at x4."""
BAYER = np.asarray([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16

Indices = NDArray[np.intp]


def pixel_art(canvas: Canvas) -> Image.Image:
    """Tiles or a dithered gradient, sprites on it, perhaps small letters, cut anywhere within a block."""
    block = canvas.one_of(BLOCKS_PX)
    side = -(-canvas.side // block) + 1
    colours = canvas.whole(4, 12)
    palette = canvas.draw.integers(0, 256, size=(colours, 3)).astype(np.uint8)
    palette[0] = canvas.whole(0, 40)
    picture = _tiles(canvas, side, colours) if canvas.chance(0.6) else _dithered(canvas, side, colours)
    for _ in range(canvas.whole(2, 3 + side * side // 500)):
        _place(canvas, picture, _sprite(canvas, colours))
    image = Image.fromarray(palette[picture])
    if canvas.chance(0.3):
        pen = ImageDraw.Draw(image)
        pen.fontmode = "1"
        ink = canvas.one_of([(255, 255, 255), (0, 0, 0)])
        pen.text(
            (canvas.whole(-4, side // 3), canvas.whole(-4, side)), canvas.words(3), ink, sized(canvas.fonts[0], 10)
        )
    top, left = (int(n) for n in canvas.draw.integers(block, size=2))
    large = image.resize((side * block, side * block), Image.Resampling.NEAREST)
    return large.crop((left, top, left + canvas.side, top + canvas.side))


def _tiles(canvas: Canvas, side: int, colours: int) -> Indices:
    """One tile of bricks, chance dots or plain colour, again and again; at times two kinds in bands."""
    size = canvas.one_of((4, 8, 16))
    rows = []
    for _ in range(canvas.whole(1, 3)):
        tile = np.full((size, size), canvas.whole(0, colours - 1))
        kind, other = canvas.whole(0, 2), canvas.whole(0, colours - 1)
        if kind == 0:
            tile[-1], tile[: size // 2, -1], tile[size // 2 :, size // 2 - 1], tile[size // 2 - 1] = (
                other,
                other,
                other,
                other,
            )
        elif kind == 1:
            tile[canvas.draw.random((size, size)) < canvas.real(0.05, 0.4)] = other
        rows.append(np.tile(tile, (-(-side // size), -(-side // size)))[:side, :side])
    picture, first = rows[0].copy(), 0
    for other_rows in rows[1:]:
        first = canvas.whole(first, side)
        picture[first:] = other_rows[first:]
    return picture


def _dithered(canvas: Canvas, side: int, colours: int) -> Indices:
    """A gradient over some colours, with ordered dithering or in steps."""
    ramp = np.linspace(0, canvas.whole(1, 3) - 0.01, side)[:, None] + np.zeros(side)
    if canvas.chance(0.7):
        ramp = ramp + np.tile(BAYER, (-(-side // 4), -(-side // 4)))[:side, :side]
    return ((canvas.whole(0, colours - 1) + ramp.astype(np.intp)) % colours).astype(np.intp)


def _sprite(canvas: Canvas, colours: int) -> Indices:
    """[n,n], left and right alike, outlined in colour 0; -1 where one sees through it."""
    size = canvas.whole(5, 16)
    inside = canvas.draw.random((size, -(-size // 2))) < np.linspace(0.35, 0.85, -(-size // 2))
    shade = 1 + canvas.draw.integers(colours - 1, size=3)[canvas.draw.integers(3, size=inside.shape)]
    half = np.where(inside, np.repeat(np.repeat(shade[::2, ::2], 2, 0), 2, 1)[: inside.shape[0], : inside.shape[1]], -1)
    whole = np.pad(np.hstack([half, half[:, ::-1]]), 1, constant_values=-1)
    filled = whole >= 0
    near = np.zeros_like(filled)
    near[1:] |= filled[:-1]
    near[:-1] |= filled[1:]
    near[:, 1:] |= filled[:, :-1]
    near[:, :-1] |= filled[:, 1:]
    whole[near & ~filled] = 0
    return whole


def _place(canvas: Canvas, picture: Indices, sprite: Indices) -> None:
    """Put a sprite somewhere wholly inside, where it fits."""
    height, width = sprite.shape
    if min(picture.shape) <= max(height, width):
        return
    y, x = canvas.whole(0, picture.shape[0] - height), canvas.whole(0, picture.shape[1] - width)
    part = picture[y : y + height, x : x + width]
    part[sprite >= 0] = sprite[sprite >= 0]
