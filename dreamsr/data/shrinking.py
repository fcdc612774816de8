"""How the small pictures of a benchmark are made: as training makes them, or by a sum, which damages all alike."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from torch import Tensor

from dreamsr.config import from_mapping, to_mapping
from dreamsr.core import resize
from dreamsr.core.noise import seed_of
from dreamsr.core.pixels import Pixels
from dreamsr.data.degradation import degrade_photo
from dreamsr.data.recipes import degradation_names, degradation_table, possible_degradations
from dreamsr.data.settings import PhotoConfig
from dreamsr.errors import UsageError
from dreamsr.measure import metrics

MOST_BLUR_PX, MOST_NOISE = 20.0, 255.0


@dataclass(frozen=True)
class Degradation:
    """How the small image is made: blur (sigma in px of the large one), bicubic, noise (sigma in grey levels), JPEG.

    With `photo` as that says instead, which is another draw for every picture. `text` names it in reports.
    """

    text: str = "bicubic"
    seed: int = 0
    blur_px: float = 0.0
    noise: float = 0.0
    jpeg_quality: int | None = None
    photo: PhotoConfig | None = None

    def apply(self, truth: Tensor, scale: int, number: int) -> Pixels:
        """[3,s*h,s*w] on 0..255 -> [h,w,3] uint8; `number` tells the images of one set apart in what is drawn."""
        if self.photo is not None:
            large, seed = metrics.as_pixels(truth), seed_of(self.seed, number)
            return degrade_photo(large, scale=scale, config=self.photo, seed=seed)
        if self.blur_px:
            image = resize.shrink(gaussian_blur(truth, self.blur_px), scale)
        else:
            image = resize.shrink_8_bit(truth, scale)
        if self.noise:
            generator = torch.Generator().manual_seed(seed_of(self.seed, number))
            image = image + self.noise * torch.randn(image.shape, generator=generator, dtype=image.dtype)
        pixels = metrics.as_pixels(image)
        return pixels if self.jpeg_quality is None else through_jpeg(pixels, self.jpeg_quality)


def parse_degradation(text: str, seed: int = 0) -> Degradation:
    """All that training takes (a name, or a TOML table), or parts joined by +: `blur-1.2+noise-10+jpeg-75`.

    Raises UsageError, ConfigError.
    """
    named = text in ("photo", *degradation_names())
    if named or text.endswith(".toml"):
        photo = from_mapping(PhotoConfig, degradation_table(text).get("photo", {}), source=f"`degradation` {text}")
        return Degradation(text if named else in_words(photo), seed, photo=photo)
    values: dict[str, float] = {}
    for part in text.split("+"):
        match = re.fullmatch(r"(blur|noise)-(\d+(?:\.\d+)?)|(jpeg)-(\d+)|bicubic", part)
        name = None if match is None else match[1] or match[3] or "bicubic"
        if match is None or name is None or name in values:
            possible = f"{possible_degradations()}, or a sum such as blur-1.2+noise-10+jpeg-75"
            raise UsageError(f"`degradation` is {text!r}, but it must be {possible}")
        values[name] = float(match[2] or match[4] or 0)
    quality = values.get("jpeg")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"`degradation` asks for JPEG quality {quality:g}, but it must be 1..100")
    blur, noise = values.get("blur", 0.0), values.get("noise", 0.0)
    if blur > MOST_BLUR_PX or noise > MOST_NOISE:
        raise UsageError(f"`degradation` is {text!r}; blur may reach {MOST_BLUR_PX:g} px and noise {MOST_NOISE:g}")
    return Degradation(text, seed, blur, noise, None if quality is None else int(quality))


def in_words(photo: PhotoConfig) -> str:
    """The settings that differ from the defaults, so that a report says all even without the user's file."""
    plain = to_mapping(PhotoConfig())
    changed = [f"{key}={value}" for key, value in to_mapping(photo).items() if value != plain[key]]
    return " ".join(["photo", *(["with"] if changed else []), *changed])


def gaussian_blur(image: Tensor, sigma_px: float) -> Tensor:
    """[3,H,W], an isotropic Gaussian cut at 4 sigma, borders mirrored with the edge repeated."""
    radius = math.ceil(4 * sigma_px)
    position = torch.arange(-radius, radius + 1, dtype=image.dtype)
    weights = (-(position**2) / (2 * sigma_px**2)).exp()
    weights = weights / weights.sum()
    for axis in (-2, -1):
        size = image.shape[axis]
        mirror = torch.cat([torch.arange(size), torch.arange(size).flip(0)])
        index = mirror[torch.arange(-radius, size + radius) % (2 * size)]
        image = image.index_select(axis % image.ndim, index).unfold(axis, 2 * radius + 1, 1) @ weights
    return image


def through_jpeg(pixels: Pixels, quality: int) -> Pixels:
    """[h,w,3] uint8 as it comes back from a JPEG file with 4:2:0 colour, the usual one."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)
    return np.array(Image.open(file, formats=["JPEG"]).convert("RGB"))
