"""Flat colour stays flat: where the small picture shows one colour far around, so does the large one.

A net gives such places a grain of a level or less, which nobody sees and every lossless file pays for: screenshots and
drawings grew to several times what bicubic gives. In photographs only what is clipped is exactly even so far.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dreamsr.core.pixels import Pixels

GRAIN_LEVELS = (0.0, 3.0, 8.0, 255.0)
"""How much of what a net adds is grain, in levels of 8 bit, where a pixel is even over 0, 1, 2 and 3 px around it.

Shared by all scales, as edges reach so far in px of the small picture; beyond the last all of it is grain.
"""
FAR_PX = len(GRAIN_LEVELS) - 1

ALL = slice(None)
Evenness = NDArray[np.uint8]


def evenness(image: Pixels, rows: slice = ALL, columns: slice = ALL) -> Evenness:
    """[h,w,C] -> [h,w]: over how many px around it, up to `FAR_PX`, the picture has the colour of a pixel; 0 for none.

    Beyond its borders it goes on as it ends. `rows` and `columns` choose a part, which is judged with what is around.
    """
    margins = []
    for axis, part in enumerate((rows, columns)):
        start, stop, _ = part.indices(image.shape[axis])
        first = max(0, start - FAR_PX)
        margins.append((slice(first, stop + FAR_PX), slice(start - first, stop - first)))
    (tall, inner_rows), (wide, inner_columns) = margins
    return _evenness(image[tall, wide])[inner_rows, inner_columns]


def _evenness(image: Pixels) -> Evenness:
    even = np.ones(image.shape[:2], np.uint8)
    for axis in (0, 1):
        even = _agreeing(even, axis, (np.diff(image, axis=axis) == 0).all(axis=2))
    result = even.copy()
    for _ in range(FAR_PX - 1):
        for axis in (0, 1):
            even = _agreeing(even, axis)
        result += even
    return result


def _agreeing(marks: Evenness, axis: int, links: NDArray[np.bool_] | Literal[True] = True) -> Evenness:
    """The marks whose two neighbours along `axis` have one too and are linked to them, [h,w] -> [h,w]."""
    kept = marks.copy()
    before, after = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
    kept[after] &= marks[before] & links
    kept[before] &= marks[after] & links
    return kept


def is_flat(even: Evenness) -> bool:
    """Whether a part of a picture, of this evenness, is of one colour and keeps it."""
    return bool((even == FAR_PX).all())


def flattened(image: Tensor, low: Tensor, even: Evenness) -> Tensor:
    """`image` [3,H,W] in [-1,1], without the grain where its small version `low` [3,h,w] is even."""
    if not even.any():
        return image
    grain = torch.tensor(GRAIN_LEVELS)[torch.from_numpy(even).long()] / 127.5  # [h,w]
    size = image.shape[-2:]
    most = F.interpolate(grain[None, None], size=size, mode="bilinear")[0].to(image)  # [1,H,W]
    colours = F.interpolate(low[None], size=size, mode="nearest-exact")[0].to(image)  # [3,H,W]
    return image - (image - colours).clamp(-most, most)
