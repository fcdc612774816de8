"""HEIC through pillow-heif, which the extra `heic` brings; libheif turns the pixels upright itself."""

import functools
import io

import numpy as np
from PIL import Image

from dreamsr.pictures.picture import Array

PLUGIN = "HEIF"
"""Pillow's name for what FORMATS calls HEIC."""


@functools.cache
def register() -> None:
    """Let Pillow read and write HEIC; done only where one is met, since it loads a large library."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


def deep_samples(image: Image.Image, data: bytes) -> Array | None:
    """uint16 [H,W,C] of a HEIC with 10 or 12 bits per channel, of which Pillow would tell 8; None for others."""
    bits = int(image.info.get("bit_depth", 8))
    if image.format != PLUGIN or bits <= 8:
        return None
    import pillow_heif

    main = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    samples: Array = np.array(main)  # at the upper end of 16 bits
    samples |= samples >> bits
    return samples if samples.ndim == 3 else samples[..., None]
