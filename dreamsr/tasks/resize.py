"""Resizing at full depth, before, after and beside the net."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from dreamsr.core.sizes import Pass

if TYPE_CHECKING:
    from dreamsr.core.pixels import Pixels

Kernel = Literal["lanczos", "bicubic"]


def resized(
    image: Pixels,
    height: int,
    width: int,
    *,
    box: tuple[float, float, float, float] | None = None,
    kernel: Kernel = "lanczos",
) -> Pixels:
    """[h,w,C] to [height,width,C] in the same dtype, antialiased and without loss of depth.

    `box` is the part of the image (left, top, right, bottom in pixels) that is to fill the result.
    """
    from PIL import Image

    if image.shape[:2] == (height, width) and box is None:
        return image
    result = np.empty((height, width, image.shape[2]), dtype=image.dtype)
    resampling = Image.Resampling.LANCZOS if kernel == "lanczos" else Image.Resampling.BICUBIC
    peak = np.iinfo(image.dtype).max
    for channel in range(image.shape[2]):
        plane = Image.fromarray(image[..., channel].astype(np.float32))
        values = np.array(plane.resize((width, height), resampling, box=box))
        result[..., channel] = np.rint(np.clip(values, 0, peak, out=values), out=values)
    return result


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
