"""Noise by position: every pixel of an image has its own, whatever tile, batch or order asks for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK_PX = 128


def seed_of(*numbers: int) -> int:
    """A 63-bit seed from a tuple of non-negative numbers; neighbouring tuples give unrelated seeds."""
    high, low = np.random.SeedSequence(numbers).generate_state(2)
    return (int(high) << 31) ^ int(low)


class NoiseField:
    """An endless canvas of N(0,1) noise for one image, made block by block where it is looked at.

    Same seed, step and position: same values, on the CPU, for any window.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def window(self, step: int, top: int, left: int, height: int, width: int) -> Tensor:
        """[3,height,width] float32 of the canvas of `step`, from pixel (top, left) on."""
        rows = range(top // BLOCK_PX, -(-(top + height) // BLOCK_PX))
        columns = range(left // BLOCK_PX, -(-(left + width) // BLOCK_PX))
        blocks = [torch.cat([self._block(step, row, column) for column in columns], dim=2) for row in rows]
        canvas = torch.cat(blocks, dim=1)  # [3, whole blocks, whole blocks]
        y, x = top - rows.start * BLOCK_PX, left - columns.start * BLOCK_PX
        return canvas[:, y : y + height, x : x + width]

    def _block(self, step: int, row: int, column: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of(self.seed, step, row, column))
        return torch.randn(3, BLOCK_PX, BLOCK_PX, generator=generator)
