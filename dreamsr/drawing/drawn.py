"""Drawn training pictures: text, screens, line art and pixel art, which photos lack and people enlarge.

Each is a pure function of (seed, number, side_px, fonts), as large as one crop and its surroundings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dreamsr.core.noise import seed_of
from dreamsr.core.pixels import Pixels
from dreamsr.drawing.canvas import Canvas
from dreamsr.drawing.fonts import Font
from dreamsr.drawing.lettering import headline, text_page
from dreamsr.drawing.line_art import chart, comic, pen_drawing, shapes
from dreamsr.drawing.pixel_art import pixel_art
from dreamsr.drawing.screens import code, window

KINDS = (
    text_page,
    text_page,
    text_page,
    headline,
    window,
    window,
    code,
    comic,
    comic,
    pen_drawing,
    shapes,
    chart,
    pixel_art,
)
"""Each equally often; more text than other things, since letters are read."""
ROOM_LOW_PX = 24
"""By how much a drawn picture is larger than a crop, in px of the small image: damage reaches so far around it."""


def is_drawn(seed: int, number: int, *, share: float) -> bool:
    """Whether crop `number` is cut from a drawn picture; `share` of all are."""
    draw = np.random.default_rng(seed_of(seed, number, 3))
    return bool(draw.random() < share)


def draw_picture(seed: int, number: int, side_px: int, fonts: Sequence[Font]) -> Pixels:
    """The drawn picture [side_px,side_px,3] that crop `number` is cut from, of any kind."""
    draw = np.random.default_rng(seed_of(seed, number, 4))
    return np.array(KINDS[int(draw.integers(len(KINDS)))](Canvas(draw, side_px, fonts)), np.uint8)


def drawn_side_px(crop_low_px: int, scale: int) -> int:
    """A crop and room about it; less than two crops, so that none can be shrunk: a pixel as drawn is one as learnt."""
    crop = crop_low_px * scale
    return min(crop + ROOM_LOW_PX * scale, 2 * crop - 1)
