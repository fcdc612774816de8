"""One result beside its truth: what it is measured on, and hints where a result looks wrongly made."""

from __future__ import annotations

import numpy as np
import torch

from dreamsr.bench.dataset import Dataset, Item
from dreamsr.bench.methods import Produced
from dreamsr.core.pixels import Pixels
from dreamsr.measure import metrics

HINT_WINDOW_PX = 256
HINT_GAIN_DB = 1.0


def comparison(produced: Produced, item: Item, dataset: Dataset) -> metrics.Comparison:
    """A result beside its truth, on luma as the set's protocol has it."""
    protocol = dataset.protocol
    luma = produced.luma
    if produced.pixels is not None:
        luma = protocol.luma(metrics.planes(produced.pixels), grey=item.grey)
    assert luma is not None
    return metrics.Comparison(
        produced.pixels,
        item.truth,
        metrics.planes(item.low),
        dataset.scale,
        protocol.finish(metrics.shave(luma, dataset.scale)),
        metrics.shave(protocol.luma(metrics.planes(item.truth), grey=item.grey), dataset.scale),
    )


def hints(pixels: Pixels, truth: Pixels) -> list[str]:
    """Mistakes that a result looks like it holds: swapped channels, a shift by one pixel. Empty where all is well.

    A mistake is named only if undoing it gains HINT_GAIN_DB over RGB in the middle of the picture.
    """
    image, wanted = (_middle(metrics.planes(array)) for array in (pixels, truth))
    now = metrics.psnr(image[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1])
    found = []
    if metrics.psnr(image.flip(0)[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1]) > now + HINT_GAIN_DB:
        found.append("red and blue look swapped (RGB or BGR)")
    moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
    gains = [metrics.psnr(_moved(image, *move), wanted[:, 1:-1, 1:-1]) - now for move in moves]
    best = int(np.argmax(gains))
    if gains[best] > HINT_GAIN_DB:
        down, right = moves[best]
        found.append(f"looks shifted by {right} px to the right and {down} px down")
    return found


def _middle(image: torch.Tensor) -> torch.Tensor:
    top, left = (max(0, (n - HINT_WINDOW_PX) // 2) for n in image.shape[-2:])
    return image[:, top : top + HINT_WINDOW_PX, left : left + HINT_WINDOW_PX]


def _moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The inside of an image as if a shift by (down, right) were undone, [3,H,W] -> [3,H-2,W-2]."""
    height, width = image.shape[-2:]
    return image[:, 1 + down : height - 1 + down, 1 + right : width - 1 + right]
