"""Under which rules a figure was measured: crop, small image, luma, border. Every report prints them in words.

`standard` is what papers since EDSR use. `y-channel` is the older way of VDSR (Kim et al. 2016), in which the
published bicubic figures were computed. `idm` is the square protocol of SR3 and IDM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from dreamsr.core import resize
from dreamsr.core.pixels import Pixels
from dreamsr.data.shrinking import Degradation
from dreamsr.errors import DataError, UsageError
from dreamsr.measure import metrics

ProtocolName = Literal["standard", "y-channel", "idm"]


@dataclass(frozen=True)
class Protocol:
    """What is done to a picture before and while it is measured.

    rounded_luma: Y rounded, as an 8-bit YCbCr file holds it, and results held to 16..235. grey_as_is: grey files are
    scored on their own 0..255 values, not on luma. interpolate_luma: bicubic and Lanczos work on Y alone and in
    floating point. square: the whole picture is shrunk to a square before anything else.
    """

    name: ProtocolName
    summary: str
    rounded_luma: bool = False
    grey_as_is: bool = False
    interpolate_luma: bool = False
    square: bool = False

    def luma(self, image: Tensor, *, grey: bool) -> Tensor:
        """[3,H,W] on 0..255 -> the plane [H,W] on which PSNR-Y and SSIM-Y are computed."""
        plane = image[0] if grey and self.grey_as_is else metrics.luma(image)
        return resize.to_grey_levels(plane) if self.rounded_luma else plane

    def finish(self, plane: Tensor) -> Tensor:
        """A result's luma plane as it is compared: rounded and held to 16..235 (VDSR), or left alone."""
        if not self.rounded_luma:
            return plane
        return resize.to_grey_levels(plane).clamp(metrics.LUMA_OFFSET, metrics.LUMA_TOP)

    def words(self, *, scale: int, degradation: Degradation, paired: bool, square_px: int) -> dict[str, Any]:
        """The rules in full, for the report."""
        crop = (
            f"short side shrunk to {square_px} px (its own length if shorter), centre square, multiple of {scale}"
            if self.square
            else f"top-left crop to a multiple of {scale}"
        )
        small = "paired low-resolution files" if paired else f"{degradation.text} (seed {degradation.seed}), 8 bit"
        luma = "MATLAB rgb2ycbcr, 16..235" + (", rounded and clipped" if self.rounded_luma else ", not rounded")
        return {
            "name": self.name,
            "summary": self.summary,
            "scale": scale,
            "truth": crop + "; 8 bit; alpha dropped",
            "small_image": small,
            "luma": luma
            + ("; grey files on their own values" if self.grey_as_is else "; grey files as three channels"),
            "border_px": scale,
            **{key: m.words.format(scale=scale) for key, m in metrics.REPORTED.items() if m.compute is not None},
            "lpips": "v0.1, RGB in [-1,1], whole image; networks alex and vgg",
            "dists": metrics.DISTS.words,
            "niqe": "not computed: no maintained library with an acceptable licence gives it",
            "fid": "not computed: it is biased on fewer than 2,000 images",
            "seconds_per_megapixel": "seconds per megapixel of the small image; commands include their start",
            "interpolation": "bicubic (MATLAB) and lanczos (Pillow)"
            + (" on luma alone, in floating point" if self.interpolate_luma else " on 8-bit RGB"),
        }


PROTOCOLS: dict[str, Protocol] = {
    "standard": Protocol("standard", "MATLAB-bicubic small image from RGB, luma not rounded (papers since EDSR)"),
    "y-channel": Protocol(
        "y-channel",
        "as VDSR: bicubic on the luma of the file alone, luma in 8 bit, grey files on their own values",
        rounded_luma=True,
        grey_as_is=True,
        interpolate_luma=True,
    ),
    "idm": Protocol("idm", "as SR3 and IDM: each picture shrunk and cut to a centre square", square=True),
}


@dataclass(frozen=True)
class KnownSet:
    """A standard set, told by its file names, and its published bicubic figures: scale -> (PSNR-Y, SSIM-Y)."""

    name: str
    stems: frozenset[str]
    bicubic: dict[int, tuple[float, float]]


KNOWN_SETS = (
    KnownSet(
        "Set5",
        frozenset({"baby", "bird", "butterfly", "head", "woman"}),
        {2: (33.66, 0.9299), 3: (30.39, 0.8682), 4: (28.42, 0.8104)},
    ),
    KnownSet(
        "Set14",
        frozenset(
            {"baboon", "barbara", "bridge", "coastguard", "comic", "face", "flowers", "foreman", "lenna", "man"}
            | {"monarch", "pepper", "ppt3", "zebra"}
        ),
        {2: (30.24, 0.8688), 3: (27.55, 0.7742), 4: (26.00, 0.7027)},
    ),
)


def known_set(stems: frozenset[str]) -> KnownSet | None:
    """The standard set that has exactly these files, if any."""
    return next((one for one in KNOWN_SETS if one.stems == {stem.lower() for stem in stems}), None)


def choose_protocol(name: str) -> Protocol:
    """Raises UsageError for an unknown name."""
    if name not in PROTOCOLS:
        raise UsageError(f"`protocol` is {name!r}, but it must be one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def cut_truth(pixels: Pixels, protocol: Protocol, *, scale: int, square_px: int) -> Pixels:
    """The part of a picture [H,W,3] uint8 that is the truth: its sides are multiples of `scale`.

    Raises DataError for a picture too small to be measured.
    """
    if protocol.square:
        pixels = centre_square(pixels, square_px)
    height, width = (n // scale * scale for n in pixels.shape[:2])
    if min(height, width) < metrics.SSIM_WINDOW + 2 * scale:
        raise DataError(
            f"{pixels.shape[1]}x{pixels.shape[0]} is too small to be measured at x{scale}; "
            f"need {metrics.SSIM_WINDOW + 2 * scale} px or more on each side"
        )
    return np.ascontiguousarray(pixels[:height, :width])


def centre_square(pixels: Pixels, side_px: int) -> Pixels:
    """[H,W,3] -> [n,n,3], n = min(side_px, H, W): the short side shrunk to n by bicubic, then the middle cut out."""
    short = min(pixels.shape[:2])
    side = min(side_px, short)
    height, width = (max(side, round(n * side / short)) for n in pixels.shape[:2])
    image = resize.resize(metrics.planes(pixels), height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return metrics.as_pixels(image)[top : top + side, left : left + side]
