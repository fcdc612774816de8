"""Drawn training pictures: text, screens, line art and pixel art, which photos lack and people enlarge.

Each is a pure function of (seed, number, fonts), as large as one crop and its surroundings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from dreamsr.config import TrainConfig
from dreamsr.core.noise import seed_of
from dreamsr.files.canvas import Canvas
from dreamsr.files.fonts import Font
from dreamsr.files.lettering import headline, text_page
from dreamsr.files.line_art import chart, comic, pen_drawing, shapes
from dreamsr.files.photos import Photos
from dreamsr.files.pixel_art import pixel_art
from dreamsr.files.screens import code, window
from dreamsr.files.window import Photo

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


class PhotosAndDrawn:
    """Photos, of which a share is drawn here instead: crop `number` always from the same kind of source."""

    def __init__(self, photos: Photos, config: TrainConfig, fonts: Sequence[Font]) -> None:
        self.photos = photos
        self.refused = photos.refused
        self.fonts = tuple(fonts)
        self.font_names = tuple(font.name for font in fonts)
        self.share = config.drawn_share
        self.side_px = drawn_side_px(config)

    def __len__(self) -> int:
        return len(self.photos)

    def photo_for(self, seed: int, number: int) -> Photo:
        own = seed_of(seed, number, 3)
        if np.random.default_rng(own).random() >= self.share:
            return self.photos.photo_for(seed, number)
        return draw_picture(own, side_px=self.side_px, fonts=self.fonts)

    def fingerprint(self) -> str:
        """That of the photos and the names of the fonts."""
        return hashlib.sha256("\n".join((self.photos.fingerprint(), *self.font_names)).encode()).hexdigest()


def draw_picture(seed: int, *, side_px: int, fonts: Sequence[Font]) -> Photo:
    """A drawn picture [side_px,side_px,3] of any kind."""
    draw = np.random.default_rng([seed, 1])
    return np.array(KINDS[int(draw.integers(len(KINDS)))](Canvas(draw, side_px, fonts)), np.uint8)


def drawn_side_px(config: TrainConfig) -> int:
    """A crop and room about it; less than two crops, so that none can be shrunk: a pixel as drawn is one as learnt."""
    crop = config.crop_low_px * config.model.scale
    return min(crop + ROOM_LOW_PX * config.model.scale, 2 * crop - 1)
