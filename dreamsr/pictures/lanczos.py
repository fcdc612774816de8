"""Resizing at full depth, before, after and beside the net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

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
