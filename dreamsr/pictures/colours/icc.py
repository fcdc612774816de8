"""ICC profiles: which ones fit the pixels, and the way to sRGB where a profile cannot stay.

Source: ICC.1:2022 sections 7.2, 10.6, 10.18 (header, curves); IEC 61966-2-1 (the sRGB transfer function).
"""

import io
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamsr.errors import OutputError
from dreamsr.pictures.picture import Array

Curve = NDArray[np.float64]

# Linear sRGB from the profile connection space (XYZ, D50, chromatically adapted after Bradford).
SRGB_FROM_XYZ_D50 = np.linalg.inv(
    np.array(
        [
            [0.4360747, 0.3850649, 0.1430804],
            [0.2225045, 0.7168786, 0.0606169],
            [0.0139322, 0.0971045, 0.7141733],
        ]
    )
)
ROWS_AT_ONCE_PX = 1 << 20


def fitting_profile(icc: bytes | None, *, is_grey: bool) -> bytes | None:
    """`icc` if it is sound and describes grey or RGB pixels, as asked; else None."""
    return icc if icc and _space(icc) == ("GRAY" if is_grey else "RGB") else None


def cmyk_to_rgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """CMYK -> RGB (sRGB) through the profile, or by plain arithmetic where there is no sound CMYK profile."""
    if icc and _space(icc) == "CMYK":
        converted = _through_profile(image, icc)
        if converted is not None:
            return converted
    return image.convert("RGB")


def is_srgb(icc: bytes) -> bool:
    """Whether the profile means the same colours as sRGB, to one step in 255 on a grid of colours."""
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    if _space(icc) == "GRAY":
        grid = np.arange(256, dtype=np.uint8)[None, :, None]  # [1,256,1]
    else:
        grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3)  # [18,324,3]
    converted = _to_srgb_8_bit(grid, icc)
    return bool(np.abs(converted.astype(int) - grid).max() <= 1)


def to_srgb(pixels: Array, icc: bytes) -> Array:
    """Pixels [H,W,3] or [H,W,1] in the encoding of `icc` -> sRGB, same shape and dtype.

    Raises OutputError for 16-bit pixels whose profile is a table rather than a matrix and curves.
    """
    return _to_srgb_8_bit(pixels, icc) if pixels.dtype == np.uint8 else _to_srgb_16_bit(pixels, icc)


def _space(icc: bytes) -> str | None:
    """The colour space that a sound profile for pictures describes: "RGB", "GRAY", "CMYK"...; else None."""
    from PIL import ImageCms

    if len(icc) < 132 or icc[36:40] != b"acsp" or icc[12:16] in (b"link", b"abst", b"nmcl"):
        return None
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space.strip()
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _through_profile(image: Image.Image, icc: bytes) -> Image.Image | None:
    from PIL import ImageCms

    try:
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _to_srgb_8_bit(pixels: Array, icc: bytes) -> Array:
    is_grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[..., 0] if is_grey else np.ascontiguousarray(pixels))
    converted = _through_profile(image, icc)
    if converted is None:
        return pixels  # the profile cannot be applied by anyone: without it the colours look the same
    array = np.asarray(converted)  # [H,W,3]
    return np.ascontiguousarray(array[..., 1:2] if is_grey else array)


def _to_srgb_16_bit(pixels: Array, icc: bytes) -> Array:
    curves, matrix = _curves_and_matrix(icc, channels=pixels.shape[2])
    rows = max(1, ROWS_AT_ONCE_PX // pixels.shape[1])
    result = np.empty_like(pixels)
    for top in range(0, pixels.shape[0], rows):
        block = pixels[top : top + rows]
        linear = np.stack([curve[block[..., c]] for c, curve in enumerate(curves)], axis=-1)  # [h,W,C] in 0..1
        linear = np.clip(linear @ matrix.T, 0.0, 1.0)
        encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        result[top : top + rows] = np.rint(encoded * 65535.0).astype(np.uint16)
    return result


def _curves_and_matrix(icc: bytes, *, channels: int) -> tuple[list[Curve], NDArray[np.float64]]:
    """What takes 16-bit codes to linear sRGB: one curve [65536] per channel, then a matrix [C,C]."""
    try:
        tags = _tags(icc)
        if b"A2B0" in tags:
            raise ValueError("a table")
        if channels == 1:
            return [_curve(tags[b"kTRC"])], np.eye(1)
        curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        colorants = [struct.unpack(">3i", tags[name][8:20]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        return curves, SRGB_FROM_XYZ_D50 @ (np.array(colorants).T / 65536.0)
    except (KeyError, ValueError, struct.error) as error:
        raise OutputError(
            "The colour profile of this 16-bit picture is a table, which cannot be turned into sRGB at 16 bit; "
            "keep the metadata, or write an 8-bit format such as WEBP."
        ) from error


def _tags(icc: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">L", icc, 128)
    tags = {}
    for i in range(min(count, 256)):
        name, at, length = struct.unpack_from(">4sLL", icc, 132 + 12 * i)
        tags[name] = icc[at : at + length]
    return tags


def _curve(tag: bytes) -> Curve:
    """A tone curve sampled at all 16-bit codes, [65536] in 0..1."""
    x = np.linspace(0.0, 1.0, 65536)
    if tag[:4] == b"para":
        return np.clip(_parametric(tag)(x), 0.0, 1.0)
    if tag[:4] != b"curv":
        raise ValueError("no curve")
    (count,) = struct.unpack_from(">L", tag, 8)
    values = np.frombuffer(tag, ">u2", count, 12)
    if count == 0:
        return x
    if count == 1:
        return np.asarray(x ** (values[0] / 256.0), dtype=np.float64)
    return np.asarray(np.interp(x, np.linspace(0.0, 1.0, count), values / 65535.0), dtype=np.float64)


def _parametric(tag: bytes) -> Callable[[Curve], Curve]:
    (kind,) = struct.unpack_from(">H", tag, 8)
    names = {0: "g", 1: "gab", 2: "gabc", 3: "gabcd", 4: "gabcdef"}[kind]
    given = dict(zip(names, (value / 65536.0 for value in struct.unpack_from(f">{len(names)}i", tag, 12)), strict=True))
    g, a, b, c = given["g"], given.get("a", 1.0), given.get("b", 0.0), given.get("c", 0.0)
    if kind in (1, 2):  # Y = (aX + b)^g + c from X = -b/a on, c before
        return lambda x: np.maximum(a * x + b, 0.0) ** g + c
    d, e, f = given.get("d", 0.0), given.get("e", 0.0), given.get("f", 0.0)
    return lambda x: np.where(x >= d, np.maximum(a * x + b, 0.0) ** g + e, c * x + f)
