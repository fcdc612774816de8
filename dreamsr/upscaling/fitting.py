"""Bringing an image to the size that the last net starts from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dreamsr.pictures.lanczos import resized
from dreamsr.upscaling.sizes import Pass

if TYPE_CHECKING:
    from dreamsr.core.pixels import Pixels


def fit(image: Pixels, one: Pass, target_height: int, target_width: int) -> Pixels:
    """Bring an image to the size that a last pass starts from, so that the pass's result begins with the target.

    The pass gives `scale * ceil(target / scale)` pixels, up to `scale - 1` more than wanted: the image's edge is
    repeated by as much, so that cropping the surplus leaves the picture unmoved.
    """
    height, width = image.shape[:2]
    tall = height * (one.scale * one.height / target_height)
    wide = width * (one.scale * one.width / target_width)
    more = ((0, math.ceil(tall) - height), (0, math.ceil(wide) - width), (0, 0))
    padded = np.pad(image, more, mode="edge") if more != ((0, 0),) * 3 else image
    return resized(padded, one.height, one.width, box=(0.0, 0.0, wide, tall))
