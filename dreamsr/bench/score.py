"""One result against its truth: the figures of one image, and hints where a result looks wrongly made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from dreamsr.bench.dataset import Dataset, Item
from dreamsr.bench.methods import Produced
from dreamsr.core.pixels import Pixels
from dreamsr.measure import metrics
from dreamsr.measure.lpips import Perceptual

METRICS = ("psnr_y", "ssim_y", "psnr_rgb", "lpips_alex", "lpips_vgg", "lr_psnr", "colour_error")
LOWER_IS_BETTER = frozenset({"lpips_alex", "lpips_vgg", "colour_error"})
HINT_WINDOW_PX = 256
HINT_GAIN_DB = 1.0

Scores = Mapping[str, float | None]


def score(produced: Produced, item: Item, dataset: Dataset, perceptual: Perceptual) -> dict[str, float | None]:
    """Every figure of METRICS; None for what the protocol, the method or this machine does not give."""
    scores: dict[str, float | None] = dict.fromkeys(METRICS)
    truth, border, protocol = metrics.planes(item.truth), dataset.scale, dataset.protocol
    true_luma = metrics.shave(protocol.luma(truth, grey=item.grey), border)
    if produced.pixels is None:
        assert produced.luma is not None
        return scores | _on_luma(protocol.finish(metrics.shave(produced.luma, border)), true_luma)
    image = metrics.planes(produced.pixels)
    luma = protocol.finish(metrics.shave(protocol.luma(image, grey=item.grey), border))
    scores |= _on_luma(luma, true_luma)
    scores |= {
        "psnr_rgb": metrics.psnr(metrics.shave(image, border), metrics.shave(truth, border)),
        "lr_psnr": metrics.low_psnr(image, metrics.planes(item.low), dataset.scale),
        "colour_error": metrics.colour_error(image, truth),
    }
    return scores | perceptual(produced.pixels, item.truth)


def _on_luma(luma: torch.Tensor, truth: torch.Tensor) -> dict[str, float | None]:
    return {"psnr_y": metrics.psnr(luma, truth), "ssim_y": metrics.ssim(luma, truth)}


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
