"""How good an enlarged image is, as the field measures it: PSNR and SSIM on MATLAB's luma, consistency, colour.

Images here are [3,H,W] (or a plane [H,W]) in float64 on 0..255, not [-1,1]: the published figures are defined
on 8-bit files, and rounding belongs to the protocol.

METRICS is the one place where a metric is named, titled, rounded and said to be good high or low. A new one is one
more entry there: tables, reports, pages and curves follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dreamsr.core import resize
from dreamsr.core.pixels import Pixels
from dreamsr.core.resize import to_grey_levels

PEAK = 255.0
LUMA_WEIGHTS = (65.481, 128.553, 24.966)
LUMA_OFFSET, LUMA_TOP = 16.0, 235.0
SSIM_WINDOW, SSIM_SIGMA, SSIM_K = 11, 1.5, (0.01, 0.03)
COLOUR_BLOCK_PX = 16


def planes(pixels: NDArray[np.uint8]) -> Tensor:
    """[H,W,3] uint8 -> [3,H,W] float64 on 0..255."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).double()


def as_pixels(image: Tensor) -> NDArray[np.uint8]:
    """[3,H,W] on 0..255 -> [H,W,3] uint8, clipped; halves round up as MATLAB's `uint8` does."""
    return to_grey_levels(image).permute(1, 2, 0).to(torch.uint8).contiguous().numpy()


def luma(image: Tensor) -> Tensor:
    """[3,H,W] -> [H,W]: MATLAB's `rgb2ycbcr` luma, black 16 and white 235 (BT.601 studio swing), not rounded."""
    weights = torch.tensor(LUMA_WEIGHTS, dtype=image.dtype, device=image.device) / PEAK
    return LUMA_OFFSET + torch.einsum("chw,c->hw", image, weights)


def shave(image: Tensor, border_px: int) -> Tensor:
    """[...,H,W] without `border_px` pixels on each side. Raises ValueError where nothing would be left."""
    if border_px == 0:
        return image
    if min(image.shape[-2:]) <= 2 * border_px:
        raise ValueError(
            f"an image of {image.shape[-1]}x{image.shape[-2]} px has no inside {border_px} px from its border"
        )
    return image[..., border_px:-border_px, border_px:-border_px]


def psnr(image: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, peak 255, over all values at once; infinite for equal images."""
    error = float((image.double() - truth.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(image: Tensor, truth: Tensor) -> float:
    """Structural similarity of two planes [H,W] (Wang et al. 2004).

    Gaussian window 11x11, sigma 1.5, K = (0.01, 0.03), L = 255, only windows that lie fully inside ('valid').
    Raises ValueError for planes smaller than the window.
    """
    if min(image.shape) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs {SSIM_WINDOW} px on each side, got {image.shape[1]}x{image.shape[0]}")
    a, b = image.double(), truth.double()
    stack = torch.stack([a, b, a * a, b * b, a * b])[:, None]  # [5,1,H,W]
    mean_a, mean_b, square_a, square_b, product = _blur(stack)[:, 0]
    c1, c2 = ((k * PEAK) ** 2 for k in SSIM_K)
    var_a, var_b, covariance = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float((top / bottom).mean())


def _blur(stack: Tensor) -> Tensor:
    """[N,1,H,W] -> [N,1,H-10,W-10]: the Gaussian window, one axis after the other."""
    window = _window().to(stack.device)
    return functional.conv2d(functional.conv2d(stack, window[None, None, :, None]), window[None, None, None, :])


@lru_cache(maxsize=1)
def _window() -> Tensor:
    """[11] float64, sums to 1."""
    position = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = (-(position**2) / (2 * SSIM_SIGMA**2)).exp()
    return weights / weights.sum()


def low_psnr(image: Tensor, low: Tensor, scale: int) -> float:
    """Consistency with the input, in dB: PSNR between the 8-bit MATLAB-bicubic shrunk `image` and `low`, over RGB.

    image: [3,s*h,s*w]; low: [3,h,w]. Tells whether details were added to the small image or against it.
    """
    return psnr(resize.shrink_8_bit(image, scale), low)


def colour_error(image: Tensor, truth: Tensor, block_px: int = COLOUR_BLOCK_PX) -> float:
    """Colour and brightness drift in grey levels: mean over blocks and channels of |mean of image - mean of truth|.

    Blocks are `block_px` square, the last ones cut by the border; texture averages out, tints do not.
    """
    difference = (image.double() - truth.double())[None]  # [1,3,H,W]
    means = functional.avg_pool2d(difference, block_px, ceil_mode=True, count_include_pad=False)
    return float(means.abs().mean())


def low_error(image: Tensor, low: Tensor, scale: int) -> float:
    """Consistency as in DREAM's tables: squared error on [0,1] between the shrunk `image` and `low`, times 1e5."""
    return float((resize.shrink(image, scale) - low).square().mean()) / PEAK**2 * 1e5


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Comparison:
    """A result beside its truth: all that a metric may look at.

    pixels and truth [s*h,s*w,3] uint8, pixels None where only luma was enlarged; low [3,h,w] on 0..255. The planes
    `luma` and `true_luma` have lost their border of `scale` px.
    """

    pixels: Pixels | None
    truth: Pixels
    low: Tensor
    scale: int
    luma: Tensor
    true_luma: Tensor

    @classmethod
    def of(cls, pixels: Pixels, truth: Pixels, low: Tensor, scale: int) -> Comparison:
        """On MATLAB's luma, not rounded."""
        return cls(pixels, truth, low, scale, *(shave(luma(planes(one)), scale) for one in (pixels, truth)))

    @cached_property
    def image(self) -> Tensor:
        """[3,s*h,s*w] on 0..255."""
        assert self.pixels is not None
        return planes(self.pixels)

    @cached_property
    def true_image(self) -> Tensor:
        """[3,s*h,s*w] on 0..255."""
        return planes(self.truth)


@dataclass(frozen=True)
class Metric:
    """One figure: its `key` in reports and logs, `title` and `unit` for readers, and how many `decimals` say all.

    `words` say how it is measured, {scale} being filled in. `agrees_within`: by how much a repeated measurement may
    differ. `compute` is None for what a network gives; `on_luma` tells that luma alone is enough for it. `watched`
    ones are measured while a net trains, too: they must be quick.
    """

    key: str
    title: str
    unit: str
    decimals: int
    better: Literal["higher", "lower"]
    agrees_within: float
    words: str
    compute: Callable[[Comparison], float] | None = None
    on_luma: bool = False
    watched: bool = False

    @property
    def lower_is_better(self) -> bool:
        return self.better == "lower"

    @property
    def label(self) -> str:
        """Title and unit, for an axis."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def heading(self) -> str:
        """Title, unit and an arrow to where it is better."""
        return f"{self.title} {self.unit}".rstrip() + (" ↓" if self.lower_is_better else " ↑")

    def text(self, value: float | None) -> str:
        """A figure as it is shown, "" for None."""
        return "" if value is None else f"{value:.{self.decimals}f}"


def _psnr_rgb(found: Comparison) -> float:
    return psnr(shave(found.image, found.scale), shave(found.true_image, found.scale))


PSNR_Y = Metric(
    "psnr_y", "PSNR-Y", "dB", 2, "higher", 0.005, "dB, peak 255, on luma, {scale} px border shaved",
    lambda found: psnr(found.luma, found.true_luma), on_luma=True, watched=True,
)  # fmt: skip
SSIM_Y = Metric(
    "ssim_y", "SSIM-Y", "", 4, "higher", 0.0005,
    "11x11 Gaussian, sigma 1.5, valid windows, on luma, {scale} px border shaved",
    lambda found: ssim(found.luma, found.true_luma), on_luma=True, watched=True,
)  # fmt: skip
PSNR_RGB = Metric(
    "psnr_rgb", "PSNR-RGB", "dB", 2, "higher", 0.005,
    "dB, peak 255, over R, G and B together, {scale} px border shaved", _psnr_rgb,
)  # fmt: skip
LPIPS_ALEX = Metric(
    "lpips_alex", "LPIPS", "", 4, "lower", 0.0005, "v0.1, RGB in [-1,1], whole image; network alex", watched=True
)
LPIPS_VGG = Metric("lpips_vgg", "LPIPS-vgg", "", 4, "lower", 0.0005, "v0.1, RGB in [-1,1], whole image; network vgg")
DISTS = Metric("dists_vgg", "DISTS", "", 4, "lower", 0.0005, "RGB in [0,1], whole image; network vgg16")
LR_PSNR = Metric(
    "lr_psnr", "LR-PSNR", "dB", 2, "higher", 0.05,
    "dB, RGB, between the result shrunk by MATLAB's bicubic to 8 bit and the small image",
    lambda found: low_psnr(found.image, found.low, found.scale),
)  # fmt: skip
COLOUR_ERROR = Metric(
    "colour_error", "colour", "", 2, "lower", 0.005,
    f"grey levels, mean |difference of {COLOUR_BLOCK_PX} px block means|",
    lambda found: colour_error(found.image, found.true_image),
)  # fmt: skip
CONSISTENCY = Metric(
    "consistency", "consistency x 1e5", "", 1, "lower", 0.5,
    "squared error on [0,1] between the result shrunk by MATLAB's bicubic and the small image, times 1e5",
    lambda found: low_error(found.image, found.low, found.scale),
)  # fmt: skip

METRICS = {
    metric.key: metric
    for metric in (PSNR_Y, SSIM_Y, PSNR_RGB, LPIPS_ALEX, LPIPS_VGG, DISTS, LR_PSNR, COLOUR_ERROR, CONSISTENCY)
}
REPORTED = {key: metric for key, metric in METRICS.items() if metric is not CONSISTENCY}
"""Those of `dreamsr bench`: LR-PSNR says the same as consistency."""
WATCHED = tuple(metric for metric in METRICS.values() if metric.watched)
"""Those of validation and of fine-tuning."""
