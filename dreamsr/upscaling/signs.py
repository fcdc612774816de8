"""What a picture shows of its past: JPEG's grid, noise, flat colours; from pixels, since a PNG may have been a JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamsr.core.pixels import Pixels

WINDOWS, WINDOW_PX = 3, 96
"""3x3 windows of 96 px tell as much as a whole picture, in a tenth of a second whatever its size."""
FEWEST_BLOCKS = 12
"""Blocks of 8x8 with anything in them, below which nothing is known of the past."""
JPEG_ZEROS, LUMA_NOISE, COLOUR_NOISE, FLAT_SHARE = 0.1, 2.4, 1.7, 0.25
"""Where damage begins that repairing weights enlarge better than clean ones: JPEG 96 and worse; noise of about 3."""

_K = np.arange(8)
_DCT = np.sqrt(np.where(_K == 0, 1, 2) / 8)[:, None] * np.cos(np.pi * (2 * _K[None] + 1) * _K[:, None] / 16)
_HIGH = _K[:, None] + _K[None] >= 5


@dataclass(frozen=True)
class Signs:
    """jpeg: how many more high DCT coefficients vanish on one grid of 8 px than on the 63 others; 0 without a past as
    a JPEG (at most .035 on 29 clean pictures), .08 to .2 at quality 97, above .2 below 90; None where too little is
    in the picture. luma_noise, colour_noise: of the quietest parts, in 8-bit levels. flat: share of pixels that
    equal their neighbours exactly, as in drawings and on screens."""

    jpeg: float | None
    luma_noise: float
    colour_noise: float
    flat: float

    @property
    def pristine(self) -> bool:
        """Whether nothing calls for repair: a photograph that was never compressed visibly, without noise."""
        quiet = self.luma_noise < LUMA_NOISE and self.colour_noise < COLOUR_NOISE
        return self.jpeg is not None and self.jpeg < JPEG_ZEROS and quiet and self.flat < FLAT_SHARE


def signs_of(pixels: Pixels) -> Signs:
    """The signs of [h,w,C] uint8 or uint16, C 1 or 3."""
    windows = [window.astype(np.float64) / (257 if pixels.dtype == np.uint16 else 1) for window in _windows(pixels)]
    lumas = [window.mean(-1) if window.shape[2] == 1 else window @ (0.299, 0.587, 0.114) for window in windows]
    reds = [(window[..., 0] - window[..., -1 if window.shape[2] == 1 else 1]) / np.sqrt(2) for window in windows]
    flat = [_flat_share(window) for window in windows]
    return Signs(_jpeg(lumas), _noise(lumas, 0.01), _noise(reds, 0.2), float(np.mean(flat)))


def _windows(pixels: Pixels) -> list[Pixels]:
    """Up to 3x3 windows spread over the picture, all on the same grid of 8 px."""
    starts = []
    for size in pixels.shape[:2]:
        count = max(1, min(WINDOWS, size // WINDOW_PX))
        room = max(0, size - WINDOW_PX)
        starts.append([int(room * (number + 0.5) / count) // 8 * 8 for number in range(count)])
    return [pixels[top : top + WINDOW_PX, left : left + WINDOW_PX] for top in starts[0] for left in starts[1]]


def _jpeg(lumas: list[NDArray[np.float64]]) -> float | None:
    """JPEG rounds most high coefficients of its blocks to 0: only a grid laid as JPEG's shows that."""
    shares = [_zero_share(lumas, down, right) for down in range(8) for right in range(8)]
    if any(share is None for share in shares):
        return None
    known = np.array(shares, dtype=np.float64)
    most = int(known.argmax())
    return float(known[most] - np.delete(known, most).mean())


def _zero_share(lumas: list[NDArray[np.float64]], down: int, right: int) -> float | None:
    """The share of high coefficients below 1 level in blocks [n,8,8] that begin at (down, right) and are not empty."""
    blocks = np.concatenate([_blocks(luma[down:, right:]) for luma in lumas])
    high = np.abs(_DCT @ blocks @ _DCT.T)[:, _HIGH]
    filled = high[high.max(1) > 2] if len(high) else high
    return float((filled < 1).mean()) if len(filled) >= FEWEST_BLOCKS else None


def _noise(planes: list[NDArray[np.float64]], quantile: float) -> float:
    """The standard deviation of noise by the mask of Immerkaer (1996), in the quietest blocks of 8x8."""
    levels = [np.zeros(1)]
    for plane in planes:
        if min(plane.shape) < 10:
            continue
        across = plane[:, :-2] - 2 * plane[:, 1:-1] + plane[:, 2:]
        both = across[:-2] - 2 * across[1:-1] + across[2:]
        levels.append(np.sqrt((_blocks(both) ** 2).mean((1, 2))) / 6)
    return float(np.quantile(np.concatenate(levels[1:] or levels), quantile))


def _blocks(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """[h,w] -> [n,8,8] of whole blocks."""
    tall, wide = plane.shape[0] // 8, plane.shape[1] // 8
    return plane[: tall * 8, : wide * 8].reshape(tall, 8, wide, 8).swapaxes(1, 2).reshape(-1, 8, 8)


def _flat_share(window: NDArray[np.float64]) -> float:
    if min(window.shape[:2]) < 2:
        return 1.0
    here = window[:-1, :-1]
    same = (here == window[1:, :-1]).all(-1) & (here == window[:-1, 1:]).all(-1)
    return float(same.mean())
