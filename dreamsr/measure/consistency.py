"""Does the large picture still say what the small one said?"""

from __future__ import annotations

import math

import torch

from dreamsr.core import resize
from dreamsr.core.pixels import Pixels, to_tensor


def consistency_db(large: Pixels, small: Pixels) -> float:
    """PSNR in dB between `large` [H,W,C], shrunk by MATLAB's bicubic, and `small` [h,w,C]; both of one dtype.

    What "LR consistency" means in the literature. Infinite where every value is equal; above about 45 dB the
    difference is invisible.
    """
    squares, count = 0.0, 0
    for channel in range(small.shape[2]):  # one at a time: large pictures are large
        part = slice(channel, channel + 1)
        shrunk = resize.resize(to_tensor(large[..., part]), small.shape[0], small.shape[1]).clamp(-1, 1)
        difference = (shrunk - to_tensor(small[..., part])) / 2  # in units of the full range
        squares += float(torch.sum(difference.double() ** 2))
        count += difference.numel()
    return math.inf if squares == 0 else -10 * math.log10(squares / count)
