"""How large a picture is on paper: read from any container, and stated again so that an enlarged one prints no larger.

What is kept is the size, not the pixels per inch, so that it stays true whatever is done to the pixels. Files that
state no unit say the shape of their pixels alone (fax: 204x98), which is kept likewise.
Source: JFIF 1.02; PNG, third edition (W3C 2025), 11.3.4.3; TIFF 6.0 (1992), section 8; CIPA DC-008 (Exif 3.0), 4.6.5.
"""

import struct
from collections.abc import Mapping
from fractions import Fraction

from PIL import Image

from dreamsr.pictures.exif import density_of_exif
from dreamsr.pictures.picture import Density, PrintSize
from dreamsr.pictures.png import SIGNATURE, chunk, chunks
from dreamsr.pictures.tiff import (
    RATIONAL,
    RESOLUTION_UNIT,
    SHORT,
    X_RESOLUTION,
    Y_RESOLUTION,
    ByteOrder,
    Entry,
    numbers,
)

CM_PER_INCH, METRES_PER_INCH = 2.54, 0.0254
INCH, CENTIMETRE = 2, 3  # of TIFF and EXIF; JFIF counts one less
HEADER_BYTES = 33  # PNG's signature and header chunk, behind which any other may follow
DENOMINATOR_LIMIT = 10_000


def print_size_of(
    image: Image.Image, data: bytes, exif: bytes | None, size_px: tuple[int, int], *, is_turned: bool
) -> PrintSize | None:
    """The size that the container states, else that of its EXIF; None where neither does, or not sensibly.

    size_px  upright     is_turned  whether width and height change places on the way from the file
    """
    found = _density_of(image, data) or _density_of_values(density_of_exif(exif))
    if found is None:
        return None
    x, y = (found.y, found.x) if is_turned else (found.x, found.y)
    return PrintSize(size_px[0] / x, size_px[1] / y, found.is_inch)


def _density_of(image: Image.Image, data: bytes) -> Density | None:
    if data.startswith(SIGNATURE):
        content = next((content for name, content in chunks(data) if name == b"pHYs" and len(content) == 9), b"")
        x, y, unit = struct.unpack(">LLB", content) if content else (0, 0, 0)
        return _sensible(x * METRES_PER_INCH, y * METRES_PER_INCH, is_inch=unit == 1)
    if "jfif_density" in image.info:
        x, y = image.info["jfif_density"]
        unit = image.info.get("jfif_unit", 0)
        return _density_of_values((x, y, unit + 1))
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        values = tags.get(X_RESOLUTION, 0), tags.get(Y_RESOLUTION, 0), tags.get(RESOLUTION_UNIT, INCH)
        return _density_of_values(values)
    if (image.format == "BMP" or not data) and "dpi" in image.info:  # without data, it is Pillow's own picture
        return _sensible(*image.info["dpi"][:2], is_inch=True)
    return None


def _density_of_values(values: tuple[float, float, int] | None) -> Density | None:
    if values is None:
        return None
    x, y, unit = values
    factor = CM_PER_INCH if unit == CENTIMETRE else 1
    return _sensible(float(x) * factor, float(y) * factor, is_inch=unit in (INCH, CENTIMETRE))


def _sensible(x: float, y: float, *, is_inch: bool) -> Density | None:
    """None for nothing or nonsense, and for square pixels of no unit, which say nothing."""
    if not (0 < x < 1e7 and 0 < y < 1e7) or (x == y and not is_inch):
        return None
    return Density(x, y, is_inch)


# --- stating it -------------------------------------------------------------------------------------------------------


def stated(data: bytes, format: str, density: Density) -> bytes:
    """A PNG, JPEG or BMP, just encoded, that states `density` as well as it can; other formats as they are."""
    if format == "PNG":
        per_metre = density._replace(x=density.x / METRES_PER_INCH, y=density.y / METRES_PER_INCH)
        content = struct.pack(">LLB", *_whole(per_metre, 2**31 - 1), density.is_inch)
        return data[:HEADER_BYTES] + chunk(b"pHYs", content) + data[HEADER_BYTES:]
    if format == "JPEG" and data[6:11] == b"JFIF\0":
        x, y = _whole(density, 2**16 - 1)
        fits = max(x, y) < 2**16
        return data[:13] + struct.pack(">BHH", density.is_inch, x, y) + data[18:] if fits else data
    if format == "BMP" and density.is_inch:
        per_metre = density._replace(x=density.x / METRES_PER_INCH, y=density.y / METRES_PER_INCH)
        return data[:38] + struct.pack("<LL", *_whole(per_metre, 2**31 - 1)) + data[46:]
    return data


def tiff_density(density: Density, order: ByteOrder) -> Mapping[int, Entry]:
    """The three entries that state `density` in a TIFF file."""
    x, y = (Fraction(value).limit_denominator(DENOMINATOR_LIMIT) for value in density[:2])
    return {
        X_RESOLUTION: numbers(RATIONAL, [x.numerator, x.denominator], order),
        Y_RESOLUTION: numbers(RATIONAL, [y.numerator, y.denominator], order),
        RESOLUTION_UNIT: numbers(SHORT, [INCH if density.is_inch else 1], order),
    }


def _whole(density: Density, limit: int) -> tuple[int, int]:
    """In whole numbers: rounded, or where the ratio alone counts, the nearest one of small numbers."""
    if density.is_inch:
        return max(1, round(density.x)), max(1, round(density.y))
    ratio = Fraction(density.x / density.y).limit_denominator(min(limit, DENOMINATOR_LIMIT))
    return max(1, ratio.numerator), ratio.denominator
