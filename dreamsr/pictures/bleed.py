"""Colour under transparency: what a picture shows nowhere must not leak into what it does show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dreamsr.core.pixels import Pixels


def bleed(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Colours [H,W,C] with those of fully transparent pixels replaced by what is visible near them.

    alpha [H,W], of the same dtype. Files hold anything under alpha 0, mostly black; a net or a resize would mix
    it into the edge as a dark halo. Push and pull over a pyramid of halves: as quick for large holes as for small.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    weight = (~hidden).astype(np.float32)  # [H,W]
    filled = _fill((pixels * weight[..., None]).astype(np.float32), weight)
    result = pixels.copy()
    result[hidden] = np.clip(np.rint(filled[hidden]), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    return result


def _fill(colour: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour [h,w,C], zero where weight [h,w] is zero -> colour everywhere; coarser levels fill the holes."""
    if weight.all() or weight.size == 1:
        return colour
    sums, counts = _halved(colour), _halved(weight[..., None])[..., 0]
    known = (counts > 0).astype(np.float32)
    coarse = _fill((sums / np.maximum(counts, 1)[..., None]).astype(np.float32), known)
    height, width = weight.shape
    wide = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(weight[..., None] > 0, colour, wide)


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums over blocks of 2x2, [h,w,C] -> [ceil(h/2),ceil(w/2),C]."""
    height, width, channels = values.shape
    padded = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    blocks = padded.reshape(-(-height // 2), 2, -(-width // 2), 2, channels)
    sums: NDArray[np.float32] = blocks.sum(axis=(1, 3))
    return sums
