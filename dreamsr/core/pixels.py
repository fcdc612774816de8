"""Between stored pixels and tensors, and keeping a result's low frequencies those of its input."""

from __future__ import annotations

from fractions import Fraction
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
