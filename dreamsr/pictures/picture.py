"""What a picture is between disk and model: upright pixels, an optional mask, and the metadata that travels along."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import features

from dreamsr.errors import OutputError, printable

Array = NDArray[Any]

FORMATS: dict[str, tuple[str, ...]] = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
}
if features.check("avif"):
    FORMATS |= {"AVIF": (".avif",)}
if find_spec("pillow_heif") is not None:  # the extra `heic`
    FORMATS |= {"HEIC": (".heic", ".heif", ".hif")}

HEIC_HINT = 'pip install "dreamsr[heic]"'

KEEPS_ALPHA = frozenset({"PNG", "WEBP", "TIFF", "AVIF", "HEIC"})
KEEPS_16_BIT = frozenset({"PNG", "TIFF"})


class Density(NamedTuple):
    """Pixels per inch, to the right and down; where not `is_inch`, only their ratio means anything."""

    x: float
    y: float
    is_inch: bool = True


class PrintSize(NamedTuple):
    """Width and height on paper in inches; where not `is_inch`, only their ratio means anything."""

    width: float
    height: float
    is_inch: bool = True

    def density(self, width_px: int, height_px: int) -> Density:
        """What makes `width_px` x `height_px` this large."""
        return Density(width_px / self.width, height_px / self.height, self.is_inch)


@dataclass(frozen=True)
class Metadata:
    """What is embedded again on writing; None where the source had nothing, or nothing sound.

    icc   a profile whose colour space fits the pixels
    exif  `Exif\\0\\0` and a TIFF structure, Orientation 1, no thumbnail
    xmp   the packet, without what is not true of the pixels alone
    texts      PNG's text chunks, name and content
    comments   of a JPEG
    resources  Photoshop's, those with IPTC and copyright
    print_size  on paper, which stays as it is however many pixels there come to be
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    texts: tuple[tuple[bytes, bytes], ...] = ()
    comments: tuple[bytes, ...] = ()
    resources: bytes | None = None
    print_size: PrintSize | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright pixels in the encoding of their own ICC profile (sRGB where there is none).

    pixels   uint8 or uint16 [H,W,3] or [H,W,1]; grey stays grey, 16 bit stays 16 bit
    alpha    same dtype [H,W], not multiplied into the pixels; None where everything is opaque by format
    format   a key of FORMATS, "" for a picture made in memory
    notes    what of the file could not be read into this
    """

    pixels: Array
    alpha: Array | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels, alpha = self.pixels, self.alpha
        if pixels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"pixels are {pixels.dtype}; a Picture holds uint8 or uint16")
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
            raise ValueError(f"pixels have shape {pixels.shape}; a Picture holds [H,W,3] or [H,W,1], at least 1x1")
        if alpha is not None and (alpha.dtype != pixels.dtype or alpha.shape != pixels.shape[:2]):
            raise ValueError(
                f"alpha is {alpha.dtype} {alpha.shape}; pixels of {pixels.dtype} {pixels.shape} need "
                f"{pixels.dtype} {pixels.shape[:2]}"
            )

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def depth_bits(self) -> int:
        """8 or 16."""
        return self.pixels.dtype.itemsize * 8

    @property
    def is_grey(self) -> bool:
        return bool(self.pixels.shape[2] == 1)


def stacked(strips: Iterable[Picture]) -> Picture:
    """Pictures of one width and kind, one below the other, as one with the metadata of the first."""
    parts = list(strips)
    if len(parts) == 1:
        return parts[0]
    pixels = np.concatenate([part.pixels for part in parts])
    alphas = [part.alpha for part in parts if part.alpha is not None]
    return replace(parts[0], pixels=pixels, alpha=np.concatenate(alphas) if alphas else None)


@dataclass(frozen=True)
class PictureInfo:
    """What the header tells: `width` and `height` upright in px, `mode` in Pillow's names, `depth_bits` 8 or 16."""

    format: str
    width: int
    height: int
    mode: str
    depth_bits: int


def format_for(path: Path | str) -> str:
    """The format that the extension of `path` asks for. Raises OutputError for an unknown one."""
    extension = Path(path).suffix.lower()
    for name, extensions in FORMATS.items():
        if extension in extensions:
            return name
    given = f"the extension {printable(extension)}" if extension else "no extension"
    known = " ".join(extension for extensions in FORMATS.values() for extension in extensions)
    more = f", or for HEIC {HEIC_HINT}" if extension in (".heic", ".heif", ".hif") else ""
    raise OutputError(f"{printable(path)} has {given}, which names no format to write; use one of {known}{more}.")


def loses_depth(picture: Picture, format: str) -> bool:
    """Whether writing `picture` as `format` rounds its 16 bits to 8."""
    return picture.depth_bits == 16 and format not in KEEPS_16_BIT


def to_8_bit(array: Array) -> Array:
    """uint16 -> uint8 of the same shape, rounded to nearest (65535 -> 255); uint8 is returned as it is."""
    if array.dtype == np.uint8:
        return array
    table = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)  # [65536]
    return table[array]


def to_rgb_8_bit(pixels: Array) -> Array:
    """[H,W,1|3] uint8 or uint16 -> [H,W,3] uint8, grey repeated."""
    return np.ascontiguousarray(np.broadcast_to(to_8_bit(pixels), (*pixels.shape[:2], 3)))
