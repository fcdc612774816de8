"""Transparency: what a picture hardly shows must not leak into what it does show, and alpha itself must not ring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dreamsr.pictures.lanczos import resized

if TYPE_CHECKING:
    from dreamsr.core.pixels import Pixels

REACH_PX = 2
"""How far a cubic kernel, or a net's sharpening of an edge, takes colours from."""
NEAR = np.array([1, 4, 6, 4, 1], np.float32) / 16  # binomial, 2 * REACH_PX + 1 taps


def bleed(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Colours [H,W,C], those of pixels that show less than their neighbours replaced by what is visible near them.

    alpha [H,W], of the same dtype. Files hold anything under alpha 0, mostly black, and often white under alpha 8;
    a net or a resize would mix it into the edge as a dark or bright rim. A pixel keeps its own colour in the share
    alpha / (largest alpha within REACH_PX), and takes the mean of its neighbours, weighted by their alpha, for the
    rest: as resizing colours multiplied by alpha would. So an even veil keeps its colours, opaque pixels theirs.
    """
    if (alpha == alpha.flat[0]).all():
        return pixels
    result = pixels.copy()
    hidden = alpha == 0
    largest = _extreme(alpha, REACH_PX, np.maximum)
    faint = (alpha < largest) & ~hidden
    if faint.any():
        share = (alpha[faint] / largest[faint].astype(np.float32))[:, None]  # [N,1]
        result[faint] = _rounded(share * pixels[faint] + (1 - share) * _means(pixels, alpha)[faint], pixels)
    if hidden.any():
        # Push and pull over a pyramid of halves: as quick for large holes as for small.
        weight = alpha.astype(np.float32) / np.float32(np.iinfo(alpha.dtype).max)  # [H,W]
        filled = _fill(result.astype(np.float32), weight)
        result[hidden] = _rounded(filled[hidden], pixels)
    return result


def enlarged_alpha(alpha: Pixels, height: int, width: int) -> Pixels:
    """[h,w] -> [height,width] by Lanczos, within what the 3x3 pixels of `alpha` around each place hold.

    A hard edge stays sharp, and what was transparent, opaque or even all around stays exactly so.
    """
    if alpha.shape == (height, width):
        return alpha
    smooth = resized(alpha[..., None], height, width)[..., 0]
    rows, columns = (
        (np.arange(large) * 2 + 1) * small // (2 * large)
        for small, large in zip(alpha.shape, (height, width), strict=True)
    )
    largest, smallest = _extreme(alpha, 1, np.maximum), _extreme(alpha, 1, np.minimum)
    np.minimum(smooth, largest[rows][:, columns], out=smooth)
    np.maximum(smooth, smallest[rows][:, columns], out=smooth)
    return smooth


def _extreme(values: Pixels, reach: int, choose: np.ufunc) -> Pixels:
    """The largest or smallest of the (2 reach + 1) squared values around each, [h,w] -> [h,w]."""
    for axis in (0, 1):
        first, *others = _shifted(values, reach, axis)
        values = first.copy()
        for other in others:
            choose(values, other, out=values)
    return values


def _means(pixels: Pixels, alpha: Pixels) -> NDArray[np.float32]:
    """The mean colour near each pixel, weighted by alpha and nearness, [H,W,C]; 0 where nothing shows."""
    weights = alpha.astype(np.float32)[..., None]
    near = np.concatenate([pixels * weights, weights], axis=2)  # [H,W,C+1]
    for axis in (0, 1):
        parts = zip(NEAR, _shifted(near, REACH_PX, axis), strict=True)
        near = sum((share * part for share, part in parts), np.zeros_like(near))
    means: NDArray[np.float32] = near[..., :-1] / np.maximum(near[..., -1:], 1e-6)
    return means


def _shifted(values: NDArray[Any], reach: int, axis: int) -> list[NDArray[Any]]:
    """Views of [h,w,...] moved by -reach to reach along `axis`, the edges repeated."""
    size = values.shape[axis]
    padded = np.pad(values, [(reach, reach) if axis == a else (0, 0) for a in range(values.ndim)], mode="edge")
    moved = np.moveaxis(padded, axis, 0)
    return [np.moveaxis(moved[at : at + size], 0, axis) for at in range(2 * reach + 1)]


def _rounded(values: NDArray[np.float32], like: Pixels) -> Pixels:
    return np.clip(np.rint(values), 0, np.iinfo(like.dtype).max).astype(like.dtype)


def _fill(colour: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour [h,w,C] that counts by its weight [h,w] -> colour everywhere; coarser levels fill where it is zero."""
    if weight.all() or weight.size == 1:
        return colour
    sums, counts = _halved(colour * weight[..., None]), _halved(weight[..., None])[..., 0]
    known = (counts > 0).astype(np.float32)
    coarse = _fill((sums / np.where(counts > 0, counts, 1)[..., None]).astype(np.float32), known)
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
