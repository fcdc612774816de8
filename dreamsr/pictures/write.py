"""Writing pictures: a Picture in, the bytes of a file out, nothing lost in silence."""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamsr.disk import write_bytes_atomically
from dreamsr.errors import DreamsrError, OutputError, UsageError
from dreamsr.pictures import heic
from dreamsr.pictures.colours.icc import is_srgb, to_srgb
from dreamsr.pictures.exif import (
    PREFIX,
    exif_as_srgb,
    exif_for_size,
    exif_of,
    exif_order,
    exif_with_density,
    tiff_tags,
    without_orientation,
)
from dreamsr.pictures.inscriptions import jpeg_segments, png_texts, tiff_entries
from dreamsr.pictures.picture import (
    FORMATS,
    KEEPS_ALPHA,
    Array,
    Density,
    Metadata,
    Picture,
    format_for,
    loses_depth,
    stacked,
    to_8_bit,
)
from dreamsr.pictures.png import chunk
from dreamsr.pictures.resolution import stated, tiff_density
from dreamsr.pictures.rows import JpegRows, PngRows, RowEncoder, TiffRows
from dreamsr.pictures.tiff import BYTE, ICC, UNDEFINED, XMP, ByteOrder, Entry, Node
from dreamsr.pictures.xmp import upright_xmp, xmp_for_size

DEFAULT_QUALITY = {"JPEG": 95, "WEBP": 90, "AVIF": 90, "HEIC": 90}
# Longest side in px. AVIF, HEIC: the limit to which decoders, Pillow's among them, will follow.
MAX_SIDE_PX = {"PNG": 2**31 - 1, "JPEG": 65_535, "WEBP": 16_383, "TIFF": 2**32 - 1, "BMP": 2**31 - 1}
MAX_SIDE_PX |= {"AVIF": 32_768, "HEIC": 32_768}
MAX_AVIF_PIXELS = 16_384 * 16_384
MAX_BMP_BYTES = 2**32 - 2048
JPEG_SEGMENT_BYTES = 65_533
JPEG_XMP_BYTES = JPEG_SEGMENT_BYTES - 29  # less the name of the segment
JPEG_ICC_BYTES = 255 * (JPEG_SEGMENT_BYTES - 14)


def write_picture(
    path: Path | str, picture: Picture, *, format: str | None = None, quality: int | None = None, strip: bool = False
) -> None:
    """Writes `picture` to `path` whole or not at all; the format is the extension's unless given.

    Raises OutputError, or UsageError for a quality outside 1 to 100.
    """
    data = encode_picture(picture, format=format or format_for(path), quality=quality, strip=strip)
    write_bytes_atomically(path, data)


def encode_picture(picture: Picture, *, format: str, quality: int | None = None, strip: bool = False) -> bytes:
    """`picture` as a file of `format`, a key of FORMATS.

    quality  1 to 100, for JPEG (95), WEBP (90; 100 is lossless), AVIF and HEIC (90); the others are always exact
    strip    leave out EXIF, XMP and ICC; pixels of another colour space are turned into sRGB first
    """
    encoder = PictureEncoder(picture, picture.height, picture.width, format=format, quality=quality, strip=strip)
    encoder.add(picture)
    return encoder.finish()


class PictureEncoder:
    """A picture of height x width px on its way into a file, as its rows come; the arguments of `encode_picture`.

    `like` is of the same kind (depth, grey, alpha) and metadata, of any size. PNG, TIFF and JPEG are coded row by row,
    so that no more is held than the file so far; for other formats the whole picture is.
    """

    def __init__(
        self,
        like: Picture,
        height: int,
        width: int,
        *,
        format: str,
        quality: int | None = None,
        strip: bool = False,
    ) -> None:
        if quality is not None and not 1 <= quality <= 100:
            raise UsageError(f"quality {quality} is impossible; give a whole number from 1 to 100.")
        if format not in FORMATS:
            raise OutputError(f"{format} cannot be written; use one of {', '.join(FORMATS)}.")
        self._height, self._width, self._format = height, width, format
        self._quality = quality or DEFAULT_QUALITY.get(format, 0)
        _check_size(height, width, format, is_grey=like.is_grey)
        size = like.metadata.print_size
        self._density = None if size is None or strip else size.density(width, height)
        self._strips: list[Picture] = []
        self._rows: RowEncoder | None = None
        with _refusing(format):
            self._metadata, self._foreign = _for_format(like, height, width, format, self._density, strip)

    def add(self, rows: Picture) -> None:
        """The next rows downward, of the full width. Raises OutputError."""
        with _refusing(self._format):
            rows = _pixels_for_format(rows, self._format, self._foreign)
            if self._format not in ("PNG", "TIFF", "JPEG"):
                self._strips.append(rows)
                return
            samples = _samples(rows)
            if self._format == "TIFF" and samples.shape[2] == 2 and samples.dtype == np.uint16:
                samples = samples[..., [0, 0, 0, 1]]  # readers know 16-bit grey with alpha too seldom
            self._rows = self._rows or self._row_encoder(samples)
            self._rows.add(samples)

    def finish(self) -> bytes:
        """The file, once all rows have come. Raises OutputError."""
        with _refusing(self._format):
            if self._rows is not None:
                return self._rows.finish()
            picture = replace(stacked(self._strips), metadata=self._metadata)
            encoders = {"WEBP": _webp, "BMP": _bmp, "AVIF": _avif, "HEIC": _heic}
            return self._stated(encoders[self._format](picture, self._quality))

    def _stated(self, data: bytes) -> bytes:
        return data if self._density is None else stated(data, self._format, self._density)

    def _row_encoder(self, samples: Array) -> RowEncoder:
        height, width, channels, bits = self._height, self._width, samples.shape[2], samples.itemsize * 8
        if self._format == "JPEG":
            return JpegRows(height, _jpeg_options(self._metadata, self._quality), self._stated)
        if self._format == "TIFF":
            order, tags = _tiff_entries(self._metadata, self._density)
            return TiffRows(height, width, channels, bits, tags=tags, order=order)
        chunks = _png_chunks(self._metadata)
        return PngRows(height, width, channels, bits, lambda header: self._stated(header) + chunks)


@contextmanager
def _refusing(format: str) -> Iterator[None]:
    """Whatever an encoder raises inside becomes an OutputError."""
    try:
        yield
    except DreamsrError:
        raise
    except MemoryError as error:
        raise OutputError(f"There is too little memory to write {format}; free some, or write PNG.") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OutputError(f"The picture cannot be written as {format} ({reason}); write PNG instead.") from error


def to_image(picture: Picture) -> Image.Image:
    """L, LA, RGB or RGBA, or I;16 for 16-bit grey without alpha; other 16-bit pictures are rounded to 8 bit."""
    if picture.depth_bits == 16 and picture.is_grey and picture.alpha is None:
        return Image.fromarray(np.ascontiguousarray(picture.pixels[..., 0]))
    samples = to_8_bit(_samples(picture))
    return Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples))


def to_pil(picture: Picture) -> Image.Image:
    """A picture for Pillow with its metadata in `info`; modes as in `to_image`."""
    image = to_image(picture)
    metadata = picture.metadata
    comment = metadata.comments[0] if metadata.comments else None
    given = {"icc_profile": metadata.icc, "exif": metadata.exif, "xmp": metadata.xmp, "comment": comment}
    for key, value in given.items():
        if value:
            image.info[key] = value
    size = metadata.print_size
    density = None if size is None else size.density(picture.width, picture.height)
    if density is not None and density.is_inch:
        image.info["dpi"] = density[:2]
    return image


# --- what a format cannot hold ----------------------------------------------------------------------------------------


def _check_size(height: int, width: int, format: str, *, is_grey: bool) -> None:
    side = MAX_SIDE_PX[format]
    if max(width, height) > side:
        raise OutputError(
            f"{width}x{height} is too large for {format}, which ends at {side} px a side; use PNG or TIFF."
        )
    if format == "AVIF" and width * height > MAX_AVIF_PIXELS:
        raise OutputError(
            f"{width}x{height} is too large for AVIF, which ends at {MAX_AVIF_PIXELS} px; use PNG or TIFF."
        )
    if format == "BMP" and (width * (1 if is_grey else 3) + 3) * height > MAX_BMP_BYTES:
        raise OutputError(f"{width}x{height} is too large for BMP, which ends at 4 GiB; use PNG or TIFF.")


def _for_format(
    like: Picture, height: int, width: int, format: str, density: Density | None, strip: bool
) -> tuple[Metadata, bytes | None]:
    """The metadata as a file of that format and size holds it, and the profile that pixels must be freed of, if any."""
    metadata = like.metadata
    icc, foreign = metadata.icc, None
    if icc is not None and (strip or not _holds_profile(format, icc, like)):
        icc, foreign = None, icc
    if strip:
        return Metadata(), foreign
    exif = exif_for_size(metadata.exif, width, height) if metadata.exif else None
    exif = exif_as_srgb(exif) if exif and foreign is not None else exif
    exif = _exif_of_density(exif, format, density)
    xmp = xmp_for_size(metadata.xmp, width, height) if metadata.xmp else None
    return replace(metadata, icc=icc, exif=exif, xmp=xmp), foreign


def _pixels_for_format(picture: Picture, format: str, foreign: bytes | None) -> Picture:
    """The pixels as the format can hold them: depth, mask and colour space settled."""
    pixels, alpha = picture.pixels, picture.alpha
    if loses_depth(picture, format):
        pixels, alpha = to_8_bit(pixels), None if alpha is None else to_8_bit(alpha)
    if alpha is not None and format not in KEEPS_ALPHA:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            keeping = ", ".join(name for name in FORMATS if name in KEEPS_ALPHA)
            raise OutputError(f"The picture has transparency, which {format} cannot hold; write one of {keeping}.")
        alpha = None
    if foreign is not None and not is_srgb(foreign):
        pixels = to_srgb(pixels, foreign)
    return Picture(pixels, alpha, format=picture.format)


def _exif_of_density(exif: bytes | None, format: str, density: Density | None) -> bytes | None:
    """The block with the picture's resolution, made for it where the format has no other place."""
    if density is None:
        return exif
    if exif is None:
        return exif_of(tiff_density(density, "<")) if format in ("WEBP", "AVIF", "HEIC") else None
    order = exif_order(exif)
    return exif_with_density(exif, tiff_density(density, order), order)


def _holds_profile(format: str, icc: bytes, like: Picture) -> bool:
    if format == "BMP" or (format == "JPEG" and len(icc) > JPEG_ICC_BYTES):
        return False
    # Where grey has to be written as RGB, a profile for grey would not fit any more.
    is_deep_tiff = format == "TIFF" and like.depth_bits == 16
    becomes_rgb = format == "WEBP" or (like.alpha is not None and (format in ("AVIF", "HEIC") or is_deep_tiff))
    return not (like.is_grey and becomes_rgb)


# --- formats ----------------------------------------------------------------------------------------------------------


def _samples(picture: Picture) -> Array:
    """[H,W,C]: the pixels, with alpha as the last channel where there is one."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[..., None]], axis=2)


def _saved(image: Image.Image, format: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _embedded(metadata: Metadata) -> dict[str, Any]:
    """The metadata in Pillow's words; b"" rather than nothing, which would mean the image's own."""
    given = {"icc_profile": metadata.icc, "exif": metadata.exif, "xmp": metadata.xmp}
    return {key: value for key, value in given.items() if value}


def _jpeg_options(metadata: Metadata, quality: int) -> dict[str, Any]:
    embedded = _embedded(
        Metadata(
            metadata.icc,
            metadata.exif if metadata.exif and len(metadata.exif) <= JPEG_SEGMENT_BYTES else None,
            metadata.xmp if metadata.xmp and len(metadata.xmp) <= JPEG_XMP_BYTES else None,
        )
    )
    return {"quality": quality, "extra": jpeg_segments(metadata), **embedded}


def _webp(picture: Picture, quality: int) -> bytes:
    # Lossless: `quality` is effort then, and `exact` keeps the colours that lie under full transparency.
    how: dict[str, Any] = {"lossless": True, "quality": 75, "exact": True} if quality == 100 else {"quality": quality}
    return _saved(to_image(picture), "WEBP", {**how, "method": 4, **_embedded(picture.metadata)})


def _avif(picture: Picture, quality: int) -> bytes:
    metadata = picture.metadata
    # AVIF states the orientation itself; left in, the block would be taken apart and lose its accents.
    exif = without_orientation(metadata.exif) if metadata.exif else None
    options = _embedded(Metadata(metadata.icc, exif, metadata.xmp))
    image = to_image(picture)
    subsampling = "4:0:0" if image.mode == "L" else "4:4:4"
    return _saved(image, "AVIF", {"quality": quality, "subsampling": subsampling, **options})


def _heic(picture: Picture, quality: int) -> bytes:
    heic.register()
    metadata = picture.metadata
    # The encoder would turn the picture as XMP says.
    metadata = replace(metadata, xmp=upright_xmp(metadata.xmp) if metadata.xmp else None)
    options = {"quality": quality, "subsampling": "4:4:4", **_embedded(metadata)}
    return _saved(to_image(picture), heic.PLUGIN, options)


def _bmp(picture: Picture, quality: int) -> bytes:  # noqa: ARG001 (all encoders take the same)
    return _saved(to_image(picture), "BMP", {"dpi": (0, 0)})  # which says nothing; Pillow would say 96


def _tiff_entries(metadata: Metadata, density: Density | None) -> tuple[ByteOrder, dict[int, Node]]:
    order, described = tiff_tags(metadata.exif)
    tags: dict[int, Node] = dict(described)
    if metadata.icc:
        tags[ICC] = Entry(UNDEFINED, metadata.icc)
    if metadata.xmp:
        tags[XMP] = Entry(BYTE, metadata.xmp)
    tags |= tiff_entries(metadata)
    return order, tags if density is None else {**tags, **tiff_density(density, order)}


def _png_chunks(metadata: Metadata) -> bytes:
    """What stands before the pixels."""
    chunks = [] if not metadata.icc else [chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc))]
    chunks += [chunk(name, content) for name, content in png_texts(metadata)]
    if metadata.exif:
        chunks.append(chunk(b"eXIf", metadata.exif.removeprefix(PREFIX)))
    return b"".join(chunks)
