"""Between stored pixels and tensors, and keeping a result's low frequencies those of its input."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamsr.core import resize

Pixels = NDArray[Any]
"""Samples as files hold them: uint8 or uint16, [H,W,C] unless said otherwise."""


def to_tensor(pixels: Pixels) -> Tensor:
    """[H,W,C] uint8 or uint16 -> [C,H,W] float32 in [-1,1]."""
    peak = np.iinfo(pixels.dtype).max
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)) * (2 / peak) - 1


def from_tensor(image: Tensor, dtype: type[np.uint8] | type[np.uint16] = np.uint8) -> Pixels:
    """[C,H,W] in [-1,1] -> [H,W,C] of `dtype`, clipped and rounded; the exact inverse of `to_tensor`."""
    peak = np.iinfo(dtype).max
    scaled = ((image.detach().float().clamp(-1, 1) + 1) * (peak / 2)).round()
    samples: Pixels = scaled.permute(1, 2, 0).cpu().numpy().astype(dtype)
    return samples  # [H,W,C]


def match_low_frequencies(image: Tensor, low: Tensor, *, scale: Fraction | int, rounds: int = 2) -> Tensor:
    """Back-projection: move `image` [B,3,H,W] until shrinking it gives `low` [B,3,h,w] again.

    Removes colour and brightness drift, the usual complaint about diffusion super-resolution, and leaves
    frequencies that the small image never held alone (Irani and Peleg 1991). H = scale*h, W = scale*w.
    """
    for _ in range(rounds):
        image = image + resize.enlarge(low - resize.shrink(image, scale), scale)
    return image


COLOUR_PX = 16
"""Over how many px of the small image colours are held where the rest is to be repaired."""


def match_colour(image: Tensor, low: Tensor, *, scale: Fraction | int) -> Tensor:
    """Move `image` [B,3,H,W] until its colours over some `COLOUR_PX` small pixels are those of `low` [B,3,h,w].

    Noise, blocks and rings of the small image lie far above these frequencies and are not put back. The mean over the
    whole image is kept exactly. H = scale*h, W = scale*w.
    """
    drift = low - resize.shrink(image, scale)  # [B,3,h,w]
    rows, columns = (_tent_matrix(size).to(drift) for size in drift.shape[-2:])
    with torch.autocast(image.device.type, enabled=False):
        return image + resize.enlarge(rows @ drift @ columns, scale)


@lru_cache(maxsize=16)
def _tent_matrix(size: int) -> Tensor:
    """[size,size] float64: a tent of half-width `COLOUR_PX` over a line that is mirrored at its ends.

    Symmetric, and rows sum to 1, so columns do, so a line's mean is kept.
    """
    offset = torch.arange(1 - COLOUR_PX, COLOUR_PX)
    weight = (1 - offset.abs().double() / COLOUR_PX) / COLOUR_PX
    place = (torch.arange(size)[:, None] + offset) % (2 * size)  # [size,2*COLOUR_PX-1]
    column = torch.where(place < size, place, 2 * size - 1 - place)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, column, weight.expand(size, -1))


SEARCH_STEP_PX = 8


def most_detailed(image: Pixels, height: int, width: int, *, border_px: int = 0) -> tuple[int, int]:
    """(top, left) of the window of height x width with the largest sum of gradients of green (or grey) in [H,W,C].

    Windows at least `border_px` inside are looked at, every SEARCH_STEP_PX.
    """
    plane = image[..., min(1, image.shape[2] - 1)].astype(np.float32)
    total = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
    total[1:-1, 1:] += np.abs(np.diff(plane, axis=0))
    total[1:, 1:-1] += np.abs(np.diff(plane, axis=1))
    for axis in (0, 1):
        np.cumsum(total, axis=axis, out=total)
    tops = np.arange(border_px, plane.shape[0] - border_px - height + 1, SEARCH_STEP_PX)[:, None]
    lefts = np.arange(border_px, plane.shape[1] - border_px - width + 1, SEARCH_STEP_PX)
    inside = (
        total[tops + height, lefts + width] - total[tops, lefts + width]
        - total[tops + height, lefts] + total[tops, lefts]
    )  # fmt: skip
    row, column = divmod(int(inside.argmax()), len(lefts))
    return int(tops[row, 0]), int(lefts[column])
