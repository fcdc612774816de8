"""Resizing at full depth, before, after and beside the net."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from dreamsr.core.pixels import Pixels

Kernel = Literal["lanczos", "bicubic"]
LANCZOS_TAPS = 3
"""On either side of a sample."""


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


def resized_strips(strips: Iterable[Pixels], height: int, width: int, *, box: tuple[float, float]) -> Iterator[Pixels]:
    """`resized` by Lanczos of an image that comes in strips [n,w,C], downward, into strips [m,width,C].

    The first box[0] x box[1] px of the image fill the result; fewer rows of it are held than two strips have.
    """
    ratio = box[0] / height
    reach = 1 + LANCZOS_TAPS * max(1.0, ratio)  # rows on either side on which one of the result depends
    held: Pixels | None = None
    first, done = 0, 0  # the row of the image that `held` begins with; rows of the result that are finished
    for strip, is_last in _with_last(strips):
        held = strip if held is None else np.concatenate([held, strip])
        ready = height if is_last else min(height, int((first + len(held) - reach) / ratio - 0.5))
        if ready <= done:
            continue
        part = (0.0, done * ratio - first, box[1], ready * ratio - first)
        yield resized(held, ready - done, width, box=part)
        needed = max(first, int(ready * ratio - reach))
        held, first, done = held[needed - first :].copy(), needed, ready


def cropped_strips(strips: Iterable[Pixels], height: int, width: int) -> Iterator[Pixels]:
    """The upper left height x width px of an image that comes in strips, downward."""
    done = 0
    for strip in strips:
        if done < height:
            yield strip[: height - done, :width]
        done += len(strip)


def _with_last(strips: Iterable[Pixels]) -> Iterator[tuple[Pixels, bool]]:
    """Each strip, and whether it is the last."""
    before: Pixels | None = None
    for strip in strips:
        if before is not None:
            yield before, False
        before = strip
    if before is not None:
        yield before, True
