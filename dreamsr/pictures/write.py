"""Writing pictures: a Picture in, the bytes of a file out, nothing lost in silence."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

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
    to_8_bit,
)
from dreamsr.pictures.png import SIGNATURE, chunk
from dreamsr.pictures.resolution import stated, tiff_density
from dreamsr.pictures.tiff import BYTE, ICC, UNDEFINED, XMP, Entry, Node, encode_tiff
from dreamsr.pictures.xmp import upright_xmp, xmp_for_size

DEFAULT_QUALITY = {"JPEG": 95, "WEBP": 90, "AVIF": 90, "HEIC": 90}
# Longest side in px. AVIF, HEIC: the limit to which decoders, Pillow's among them, will follow.
MAX_SIDE_PX = {"PNG": 2**31 - 1, "JPEG": 65_535, "WEBP": 16_383, "TIFF": 2**32 - 1, "BMP": 2**31 - 1}
MAX_SIDE_PX |= {"AVIF": 32_768, "HEIC": 32_768}
MAX_AVIF_PIXELS = 16_384 * 16_384
MAX_BMP_BYTES = 2**32 - 2048
PNG_LEVEL = 4
PNG_ROWS_BYTES = 1 << 22
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
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is impossible; give a whole number from 1 to 100.")
    if format not in FORMATS:
        raise OutputError(f"{format} cannot be written; use one of {', '.join(FORMATS)}.")
    _check_size(picture, format)
    picture = _for_format(picture, format, strip)
    encoders = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp, "TIFF": _tiff, "BMP": _bmp, "AVIF": _avif, "HEIC": _heic}
    try:
        data = encoders[format](picture, quality or DEFAULT_QUALITY.get(format, 0))
        density = _density(picture)
        return data if density is None else stated(data, format, density)
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
    density = _density(picture)
    if density is not None and density.is_inch:
        image.info["dpi"] = density[:2]
    return image


# --- what a format cannot hold ----------------------------------------------------------------------------------------


def _check_size(picture: Picture, format: str) -> None:
    width, height, side = picture.width, picture.height, MAX_SIDE_PX[format]
    if max(width, height) > side:
        raise OutputError(
            f"{width}x{height} is too large for {format}, which ends at {side} px a side; use PNG or TIFF."
        )
    if format == "AVIF" and width * height > MAX_AVIF_PIXELS:
        raise OutputError(
            f"{width}x{height} is too large for AVIF, which ends at {MAX_AVIF_PIXELS} px; use PNG or TIFF."
        )
    if format == "BMP" and (width * (1 if picture.is_grey else 3) + 3) * height > MAX_BMP_BYTES:
        raise OutputError(f"{width}x{height} is too large for BMP, which ends at 4 GiB; use PNG or TIFF.")


def _for_format(picture: Picture, format: str, strip: bool) -> Picture:
    """The picture as the format can hold it: depth, mask, colour space and metadata settled."""
    pixels, alpha, metadata = picture.pixels, picture.alpha, picture.metadata
    if loses_depth(picture, format):
        pixels, alpha = to_8_bit(pixels), None if alpha is None else to_8_bit(alpha)
    if alpha is not None and format not in KEEPS_ALPHA:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            keeping = ", ".join(name for name in FORMATS if name in KEEPS_ALPHA)
            raise OutputError(f"The picture has transparency, which {format} cannot hold; write one of {keeping}.")
        alpha = None
    icc, is_converted = metadata.icc, False
    if icc is not None and (strip or not _holds_profile(format, icc, pixels, alpha)):
        pixels = pixels if is_srgb(icc) else to_srgb(pixels, icc)
        icc, is_converted = None, True
    if strip:
        return Picture(pixels, alpha, Metadata(), picture.format)
    exif = exif_for_size(metadata.exif, picture.width, picture.height) if metadata.exif else None
    exif = exif_as_srgb(exif) if exif and is_converted else exif
    exif = _exif_of_density(exif, format, picture)
    xmp = xmp_for_size(metadata.xmp, picture.width, picture.height) if metadata.xmp else None
    return Picture(pixels, alpha, replace(metadata, icc=icc, exif=exif, xmp=xmp), picture.format)


def _density(picture: Picture) -> Density | None:
    size = picture.metadata.print_size
    return None if size is None else size.density(picture.width, picture.height)


def _exif_of_density(exif: bytes | None, format: str, picture: Picture) -> bytes | None:
    """The block with the picture's resolution, made for it where the format has no other place."""
    density = _density(picture)
    if density is None:
        return exif
    if exif is None:
        return exif_of(tiff_density(density, "<")) if format in ("WEBP", "AVIF", "HEIC") else None
    order = exif_order(exif)
    return exif_with_density(exif, tiff_density(density, order), order)


def _holds_profile(format: str, icc: bytes, pixels: Array, alpha: Array | None) -> bool:
    if format == "BMP" or (format == "JPEG" and len(icc) > JPEG_ICC_BYTES):
        return False
    # Where grey has to be written as RGB, a profile for grey would not fit any more.
    becomes_rgb = format == "WEBP" or (
        alpha is not None and (format in ("AVIF", "HEIC") or _is_deep_tiff(format, pixels))
    )
    return not (pixels.shape[2] == 1 and becomes_rgb)


def _is_deep_tiff(format: str, pixels: Array) -> bool:
    return format == "TIFF" and pixels.dtype == np.uint16


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


def _jpeg(picture: Picture, quality: int) -> bytes:
    metadata = picture.metadata
    options = _embedded(
        Metadata(
            metadata.icc,
            metadata.exif if metadata.exif and len(metadata.exif) <= JPEG_SEGMENT_BYTES else None,
            metadata.xmp if metadata.xmp and len(metadata.xmp) <= JPEG_XMP_BYTES else None,
        )
    )
    extra = jpeg_segments(metadata)
    return _saved(to_image(picture), "JPEG", {"quality": quality, "subsampling": 0, "extra": extra, **options})


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


def _tiff(picture: Picture, quality: int) -> bytes:  # noqa: ARG001
    metadata = picture.metadata
    order, described = tiff_tags(metadata.exif)
    tags: dict[int, Node] = dict(described)
    if metadata.icc:
        tags[ICC] = Entry(UNDEFINED, metadata.icc)
    if metadata.xmp:
        tags[XMP] = Entry(BYTE, metadata.xmp)
    tags |= tiff_entries(metadata)
    density = _density(picture)
    tags |= {} if density is None else tiff_density(density, order)
    samples = _samples(picture)
    if samples.shape[2] == 2 and _is_deep_tiff("TIFF", samples):
        samples = samples[..., [0, 0, 0, 1]]  # readers know 16-bit grey with alpha too seldom
    return encode_tiff(samples, tags=tags, order=order)


def _png(picture: Picture, quality: int) -> bytes:  # noqa: ARG001
    metadata = picture.metadata
    texts = png_texts(metadata)
    if picture.depth_bits == 16 and not (picture.is_grey and picture.alpha is None):
        return _png_16(_samples(picture), metadata, texts)
    info = PngImagePlugin.PngInfo()
    for name, content in texts:
        info.add(name, content)
    options = _embedded(Metadata(metadata.icc, metadata.exif, None))
    return _saved(to_image(picture), "PNG", {"compress_level": PNG_LEVEL, "pnginfo": info, **options})


def _png_16(samples: Array, metadata: Metadata, texts: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A 16-bit PNG of uint16 [H,W,C], C = 2 grey + alpha, 3 RGB, 4 RGB + alpha: the kinds Pillow cannot write."""
    height, width, channels = samples.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    chunks = [SIGNATURE, chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 16, kind, 0, 0, 0))]
    if metadata.icc:
        chunks.append(chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    chunks += [chunk(name, content) for name, content in texts]
    if metadata.exif:
        chunks.append(chunk(b"eXIf", metadata.exif.removeprefix(PREFIX)))
    packer = zlib.compressobj(PNG_LEVEL)
    rows = max(1, PNG_ROWS_BYTES // (width * channels * 2))
    above = np.zeros((1, width * channels * 2), dtype=np.uint8)
    for top in range(0, height, rows):
        block = samples[top : top + rows].astype(">u2").view(np.uint8).reshape(-1, width * channels * 2)  # [h,bytes]
        chunks.append(chunk(b"IDAT", packer.compress(_paeth(block, above, channels * 2))))
        above = block[-1:]
    chunks += [chunk(b"IDAT", packer.flush()), chunk(b"IEND", b"")]
    return b"".join(chunks)


def _paeth(rows: Array, above: Array, pixel_bytes: int) -> bytes:
    """Rows of bytes [h,n] behind the row `above` [1,n], filtered by PNG's type 4 (PNG 3rd edition, 9.4)."""
    left = np.zeros_like(rows)
    left[:, pixel_bytes:] = rows[:, :-pixel_bytes]
    up = np.concatenate([above, rows[:-1]])
    corner = np.zeros_like(rows)
    corner[:, pixel_bytes:] = up[:, :-pixel_bytes]
    a, b, c = (part.astype(np.int16) for part in (left, up, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    guess = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), dtype=np.uint8)
    filtered[:, 0] = 4
    filtered[:, 1:] = rows - guess  # modulo 256
    return filtered.tobytes()
