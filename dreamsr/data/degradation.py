"""The degradation "photo": what cameras, phones and the web do to a picture before somebody wants it larger.

Two rounds of blur, resize and noise with JPEG between them (Real-ESRGAN: Wang et al. 2021, section 3), each in
random order (BSRGAN: Zhang et al. 2021, section 3); at last ringing (a sinc filter) and JPEG, in either order.
Beside that what phones and messengers do, and nearly nothing for a share of the pictures; see `PhotoConfig`.
Nothing shifts the picture: kernels are symmetric, resizing maps edges to edges, blocks are moved there and back.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from dreamsr.data.settings import PhotoConfig
from dreamsr.data.window import shrunk_window

Image = NDArray[np.float32]
"""[H,W,3] in [0,1]; may leave the range on the way."""

ANISOTROPIC_PROBABILITY = 0.5
GENERALISED_PROBABILITY = 0.15
PLATEAU_PROBABILITY = 0.15
GENERALISED_BETA = (0.5, 4.0)
PLATEAU_BETA = (1.0, 2.0)
SINC_CUTOFF = (math.pi / 3, math.pi)
SINC_RADIUS_PX = (3, 10)
LIGHT_JPEG_QUALITY = (75, 98)
SHARPEN_RADIUS_PX = (0.6, 1.3)
CHROMA_BLOB_PX = (0.6, 2.2)
BLOCK_PX = 16
"""JPEG's blocks of pixels with colour at half the size."""


def degrade_photo(large: NDArray[np.uint8], *, scale: int, config: PhotoConfig, seed: int) -> NDArray[np.uint8]:
    """[H,W,3] -> [H/scale,W/scale,3], a pure function of picture and seed; both sides must be multiples of `scale`.

    Draws: blur and resize evenly (the latter in log), noise with its square root even, so that clean pictures are
    the more frequent. The second round's resize is relative to the small image, the first's to the large one.
    """
    height, width = large.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"{width}x{height} is no multiple of {scale}")
    draw = np.random.default_rng(seed)
    small = (height // scale, width // scale)
    if config.clean_share or config.light_share:
        share = draw.random()
        if share < config.clean_share + config.light_share:
            low = shrunk_window(large, scale, top=0, left=0, height=small[0], width=small[1])
            return low if share < config.clean_share else _as_bytes(_jpeg(draw, low, config, LIGHT_JPEG_QUALITY))
    image: Image = large.astype(np.float32) / np.float32(255)
    with _one_thread():
        image = _first_round(draw, image, small, config)
        if draw.random() < config.second_probability:
            image = _compressed(draw, image, config)
            blur, probability, resize = config.second_blur_px, config.second_blur_probability, config.second_resize
            image = _round(draw, image, small, config, blur, probability, resize)
        image = _finished(draw, image, small, config)
    return _as_bytes(image)


def _first_round(draw: np.random.Generator, image: Image, small: tuple[int, int], config: PhotoConfig) -> Image:
    """Blur, resize and noise of the large image or, where it is shrunk early, blur of it and the rest of the small."""
    blur_px, probability, reference = config.blur_px, config.blur_probability, image.shape[:2]
    if _happens(draw, config.early_shrink_probability):
        image = _shrunk(draw, _blurred(draw, image, config, blur_px, probability), small)
        probability, reference = 0.0, small
    image = _round(draw, image, reference, config, blur_px, probability, config.resize)
    return _sharpened(draw, image, config) if _happens(draw, config.sharpen_probability) else image


def _round(
    draw: np.random.Generator,
    image: Image,
    reference: tuple[int, int],
    config: PhotoConfig,
    blur_px: tuple[float, float],
    blur_probability: float,
    resize: tuple[float, float],
) -> Image:
    """Blur, resize (relative to the size `reference`) and noise, in random order."""
    steps: tuple[Callable[[Image], Image], ...] = (
        lambda image: _blurred(draw, image, config, blur_px, blur_probability),
        lambda image: (
            _resized(draw, image, _times(reference, _log_uniform(draw, resize)))
            if _happens(draw, config.resize_probability)
            else image
        ),
        lambda image: _noisy(draw, image, config),
    )
    for which in draw.permutation(len(steps)):
        image = steps[which](image)
    return image


def _finished(draw: np.random.Generator, image: Image, small: tuple[int, int], config: PhotoConfig) -> Image:
    """To the size of the small image, with ringing and JPEG: compressed before it was shrunk, or after."""
    jpeg_first = draw.random() < 0.5
    if jpeg_first:
        image = _compressed(draw, image, config)
    image = _resized(draw, image, small)
    if draw.random() < config.final_sinc_probability:
        image = _filtered(image, sinc_kernel(int(draw.integers(*SINC_RADIUS_PX, endpoint=True)), _cutoff(draw)))
    return image if jpeg_first else _compressed(draw, image, config)


# --- steps ------------------------------------------------------------------------------------------------------------


def _blurred(
    draw: np.random.Generator, image: Image, config: PhotoConfig, blur_px: tuple[float, float], probability: float
) -> Image:
    if draw.random() >= probability:
        return image
    if draw.random() < config.sinc_probability:
        return _filtered(image, sinc_kernel(int(draw.integers(*SINC_RADIUS_PX, endpoint=True)), _cutoff(draw)))
    along, across = draw.uniform(*blur_px, size=2)
    if draw.random() >= ANISOTROPIC_PROBABILITY:
        across = along
    angle, shape = draw.uniform(0, math.pi), draw.random()
    if shape < GENERALISED_PROBABILITY:
        kernel = blur_kernel(along, across, angle, beta=_log_uniform(draw, GENERALISED_BETA))
    elif shape < GENERALISED_PROBABILITY + PLATEAU_PROBABILITY:
        kernel = blur_kernel(along, across, angle, beta=draw.uniform(*PLATEAU_BETA), plateau=True)
    else:
        kernel = blur_kernel(along, across, angle)
    return _filtered(image, kernel)


def _resized(draw: np.random.Generator, image: Image, size: tuple[int, int]) -> Image:
    """To (height, width) by area, bilinear or bicubic interpolation; the latter two alias, as cheap scalers do."""
    import cv2

    method = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[draw.integers(3)]
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=method), np.float32)


def _shrunk(draw: np.random.Generator, image: Image, size: tuple[int, int]) -> Image:
    """To (height, width) with a filter as wide as the step, as good programs do: 8 bit in, 8 bit out."""
    from PIL import Image as Pillow

    filters = (Pillow.Resampling.BICUBIC, Pillow.Resampling.LANCZOS, Pillow.Resampling.BILINEAR, Pillow.Resampling.BOX)
    chosen = filters[draw.integers(len(filters))]
    small = Pillow.fromarray(_as_bytes(image)).resize((size[1], size[0]), chosen)
    return np.asarray(small, np.float32) / np.float32(255)


def _sharpened(draw: np.random.Generator, image: Image, config: PhotoConfig) -> Image:
    """Unsharp masking."""
    amount, radius_px = draw.uniform(*config.sharpen), draw.uniform(*SHARPEN_RADIUS_PX)
    soft = _filtered(image, blur_kernel(radius_px, radius_px, 0.0))
    return np.asarray(image + np.float32(amount) * (image - soft), np.float32)


def _noisy(draw: np.random.Generator, image: Image, config: PhotoConfig) -> Image:
    """Gaussian noise, or shot noise of the same strength at mid grey; one for all channels, or one for each.

    Shot noise, a Poisson count of photons, is taken as Gaussian with the count's variance: strength 25 means 52
    photons at white, where the two look alike and the count takes ten times as long.
    """
    if draw.random() >= config.noise_probability:
        return image
    low, high = config.noise
    level = (low + (high - low) * draw.random() ** 2) / 255
    grey, shot = draw.random() < config.grey_noise_probability, draw.random() < config.poisson_probability
    if _happens(draw, config.camera_noise_probability):
        return _camera_noisy(draw, image, level, config)
    clean = image.mean(axis=2, keepdims=True) if grey else image  # [H,W,1|3]
    noise = np.float32(level) * draw.standard_normal(clean.shape, dtype=np.float32)
    return np.asarray(image + (np.sqrt(2 * np.clip(clean, 0, 1)) * noise if shot else noise), np.float32)


def _camera_noisy(draw: np.random.Generator, image: Image, level: float, config: PhotoConfig) -> Image:
    """What a camera's own denoising leaves: noise in luma, blobs in chroma, both stronger in shadows."""
    height, width = image.shape[:2]
    blob_px = draw.uniform(*CHROMA_BLOB_PX)
    kernel = blur_kernel(blob_px, blob_px, 0.0)
    blobs = _filtered(draw.standard_normal((height, width, 3), dtype=np.float32), kernel)
    blobs -= blobs.mean(axis=2, keepdims=True)  # colour alone
    strength = np.float32(draw.uniform(*config.chroma_noise) / math.sqrt((kernel**2).sum()))
    noise = draw.standard_normal((height, width, 1), dtype=np.float32) + strength * blobs
    light = np.clip(image.mean(axis=2, keepdims=True), 0, 1)
    return np.asarray(image + np.float32(level) * (np.float32(1.3) - np.float32(0.65) * light) * noise, np.float32)


def _compressed(draw: np.random.Generator, image: Image, config: PhotoConfig) -> Image:
    """By WebP or JPEG, the latter once or twice, or not at all."""
    if not _happens(draw, config.jpeg_probability):
        return image
    if _happens(draw, config.webp_probability):
        quality = int(draw.integers(*config.jpeg_quality, endpoint=True))
        return _stored(_as_bytes(image), "WEBP", quality=quality, method=2)
    image = _jpeg(draw, _as_bytes(image), config, config.jpeg_quality)
    if not _happens(draw, config.double_jpeg_probability):
        return image
    above, before = (int(n) for n in draw.integers(BLOCK_PX, size=2))
    moved = np.pad(_as_bytes(image), ((above, 0), (before, 0), (0, 0)), mode="edge")
    return _jpeg(draw, moved, config, config.jpeg_quality)[above:, before:]


def _jpeg(
    draw: np.random.Generator, pixels: NDArray[np.uint8], config: PhotoConfig, qualities: tuple[int, int]
) -> Image:
    quality = int(draw.integers(*qualities, endpoint=True))
    subsampling = 0 if draw.random() < 1 - config.subsampling_probability else 2
    return _stored(pixels, "JPEG", quality=quality, subsampling=subsampling)


def _stored(pixels: NDArray[np.uint8], kind: str, **options: int) -> Image:
    """What is read again of pixels saved as JPEG or WebP."""
    from PIL import Image as Pillow

    file = BytesIO()
    Pillow.fromarray(pixels).save(file, kind, **options)
    return np.asarray(Pillow.open(file, formats=[kind]).convert("RGB"), np.float32) / np.float32(255)


def _as_bytes(image: Image) -> NDArray[np.uint8]:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


# --- kernels ----------------------------------------------------------------------------------------------------------


def blur_kernel(
    along_px: float, across_px: float, angle: float, *, beta: float = 1.0, plateau: bool = False
) -> NDArray[np.float64]:
    """[n,n], n odd, sums to 1: a Gaussian of two standard deviations, turned by `angle` (radians).

    With q the squared distance in standard deviations: exp(-q^beta / 2), beta 1 the Gaussian (generalised, Liu et
    al. 2020), or with `plateau` 1 / (1 + q^beta).
    """
    radius = max(1, math.ceil(3 * max(along_px, across_px)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    u, v = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    least = 1e-3  # a standard deviation of zero is no blur, not a division by zero
    distance = (u / max(along_px, least)) ** 2 + (v / max(across_px, least)) ** 2
    kernel = 1 / (1 + distance**beta) if plateau else np.exp(-0.5 * distance**beta)
    return np.asarray(kernel / kernel.sum())


def sinc_kernel(radius_px: int, cutoff: float) -> NDArray[np.float64]:
    """[n,n], n = 2*radius_px + 1, sums to 1: passes frequencies below `cutoff` (radians per px), and so rings.

    Real-ESRGAN, equation 6: cutoff * J1(cutoff * r) / (2 pi r).
    """
    import torch

    y, x = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1].astype(np.float64)
    r = np.hypot(x, y)
    r[radius_px, radius_px] = 1
    kernel = cutoff * torch.special.bessel_j1(torch.from_numpy(cutoff * r)).numpy() / (2 * math.pi * r)
    kernel[radius_px, radius_px] = cutoff**2 / (4 * math.pi)  # the limit at r = 0
    return np.asarray(kernel / kernel.sum())


def _filtered(image: Image, kernel: NDArray[np.float64]) -> Image:
    import cv2

    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32)


# --- draws ------------------------------------------------------------------------------------------------------------


def _happens(draw: np.random.Generator, probability: float) -> bool:
    """Draws nothing where it is certain, so that settings at their ends leave all other draws as they are."""
    return probability >= 1 or (probability > 0 and draw.random() < probability)


def _log_uniform(draw: np.random.Generator, ends: tuple[float, float]) -> float:
    return math.exp(draw.uniform(math.log(ends[0]), math.log(ends[1])))


def _cutoff(draw: np.random.Generator) -> float:
    return float(draw.uniform(*SINC_CUTOFF))


def _times(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV on the calling thread: its thread pool does not survive the fork that makes a loader's worker."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
