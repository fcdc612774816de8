"""Reading pictures: any bytes in, an upright Picture or one ImageError out."""

import contextlib
import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from dreamsr.errors import DamagedError, ImageError
from dreamsr.pictures import heic
from dreamsr.pictures.colours.icc import cmyk_to_rgb
from dreamsr.pictures.colours.meaning import profile_of, refuse_hdr
from dreamsr.pictures.decoding.damage import completed, damage_in, load_tiff
from dreamsr.pictures.decoding.jpeg import is_ended
from dreamsr.pictures.decoding.planes import interleaved, is_planar, main_page
from dreamsr.pictures.exif import exif_from_tiff, kept_exif, orientation_of
from dreamsr.pictures.inscriptions import comments_of, resources_of, texts_of
from dreamsr.pictures.losses import not_read
from dreamsr.pictures.opening import all_bytes, decoding, format_of, name_of, opened, refuse_frames, stream_of
from dreamsr.pictures.picture import Array, Metadata, Picture, PictureInfo
from dreamsr.pictures.png import is_sound, mended
from dreamsr.pictures.resolution import print_size_of
from dreamsr.pictures.tiff import BITS, PHOTOMETRIC, XMP, read_directory, read_header
from dreamsr.pictures.xmp import true_xmp, upright_xmp

DEFAULT_MAX_PIXELS = 178_956_970
HEAD_BYTES = 1 << 20  # where files say what their colours mean
CHECK_MAX_PIXELS = 1 << 34  # when checking our own results, which may be larger than what is accepted as input


def read_picture(
    source: Path | str | bytes,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    accept_damaged: bool = False,
    known_whole: bool = False,
) -> Picture:
    """The one picture in `source`, a path or the bytes of a file, of at most `max_pixels` px.

    accept_damaged  take what decodes although part of it is missing or wrong, with a note, rather than DamagedError
    known_whole     these very bytes were read before: what decodes is not looked through for damage again

    Raises ImageError for everything that is not one whole picture in one of FORMATS.
    """
    name = name_of(source)
    given = all_bytes(source, name, max_pixels)
    with decoding(name):
        image, data = _opened_whole(given, name, max_pixels)
        damage = "" if known_whole else damage_in(data, format_of(image))
        if damage and not accept_damaged:
            raise _damaged(name, damage)
        samples = _deep_samples(image, data, name, max_pixels)
        is_deep = ";16" in _raw_mode(image)
        damage = _load(image, name) or damage
        if damage and not accept_damaged:
            raise _damaged(name, damage)
        pixels, alpha = _colour_and_alpha(image, samples, _png_bits(data), name)
        exif, xmp = _exif_and_xmp(image, data)
        icc = profile_of(image, data, exif, is_grey=pixels.shape[2] == 1, name=name)
        found = Metadata(icc, exif, xmp, texts_of(data), comments_of(image), resources_of(image, data))
        picture = _upright(image, data, pixels, alpha, found)
        notes = not_read(image, data, is_deep=is_deep, dtype=pixels.dtype)
        if data[:4] == given[:4] == b"\x89PNG" and len(data) < len(given):
            notes += ("damaged metadata was left out",)
        if damage:
            notes += (f"the picture is damaged ({damage}) and was taken as it is",)
        return replace(picture, notes=(*notes, *picture.notes))


def probe_picture(source: Path | str | bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> PictureInfo:
    """Format, upright size and mode from the header, without decoding pixels. Raises ImageError."""
    name = name_of(source)
    with decoding(name), stream_of(source, name) as stream:
        image = opened(stream, name, max_pixels)
        refuse_frames(image, name)
        stream.seek(0)
        refuse_hdr(image, stream.read(HEAD_BYTES), name)
        exif = image.info.get("exif")
        turn = orientation_of(exif if isinstance(exif, bytes) and image.format != "TIFF" else None)
        width, height = image.size if turn not in (5, 6, 7, 8) else image.size[::-1]
        deep = image.mode.startswith("I") or ";16" in _raw_mode(image) or image.info.get("bit_depth", 8) > 8
        deep = deep or getattr(image, "tag_v2", {}).get(BITS, ())[:1] == (16,)
        return PictureInfo(format_of(image), width, height, image.mode, 16 if deep else 8)


def is_complete_picture(path: Path | str) -> bool:
    """Whether `path` holds one whole picture, found by decoding all of it."""
    name = name_of(path)
    try:
        data = all_bytes(path, name, CHECK_MAX_PIXELS)
        with decoding(name):
            image, whole = _opened_whole(data, name, CHECK_MAX_PIXELS)
            damage = damage_in(whole, format_of(image)) or _load(image, name)
            if format_of(image) == "JPEG" and not is_ended(data):
                return False  # what lacks its end marker is readable, not complete
            return not damage and (image.format != "PNG" or is_sound(data))
    except ImageError:
        return False


def from_pil(image: Image.Image) -> Picture:
    """A picture from Pillow: the current frame, upright, with its metadata. Raises ImageError for other modes."""
    name = "the given picture"
    with decoding(name):
        image.load()
        exif = image.info.get("exif")
        xmp = image.info.get("xmp")
        pixels, alpha = _colour_and_alpha(image, None, 8, name)
        exif, xmp = exif if isinstance(exif, bytes) else None, xmp if isinstance(xmp, bytes) else None
        icc = profile_of(image, b"", exif, is_grey=pixels.shape[2] == 1, name=name)
        return _upright(image, b"", pixels, alpha, Metadata(icc, exif, xmp, comments=comments_of(image)))


def _opened_whole(data: bytes, name: str, max_pixels: int) -> tuple[ImageFile.ImageFile, bytes]:
    """The header, and the file as it is to be read.

    Of a TIFF, the main page first and the channels of each pixel together; of a JPEG, with an end marker; of a PNG,
    without damaged metadata.
    """
    image = opened(io.BytesIO(data), name, max_pixels)
    refuse_frames(image, name)
    format = format_of(image)
    if format == "JPEG":
        data = completed(data)
    elif format == "PNG":
        data = mended(data)
    elif format == "TIFF":
        data = main_page(io.BytesIO(data), name).read()
        if is_planar(getattr(image, "tag_v2", {})):
            data = interleaved(data, name)
    else:
        return image, data
    return opened(io.BytesIO(data), name, max_pixels), data


def _damaged(name: str, reason: str) -> DamagedError:
    return DamagedError(f"{name} is damaged ({reason}): part of it is missing or wrong; get a whole copy of it.")


# --- samples ----------------------------------------------------------------------------------------------------------


def _load(image: ImageFile.ImageFile, name: str) -> str:
    """Decodes the pixels; what libtiff had to say of them, "" for nothing."""
    if image.format != "TIFF":
        image.load()
        return ""
    # Pillow turns TIFF pictures itself, after XMP too where the orientation tag is missing; no viewer does that.
    image.info.pop("xmp", None)
    return load_tiff(image, name)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    if not image.tile:
        return ""
    args = image.tile[0].args
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _png_bits(data: bytes) -> int:
    """The bits per sample that a PNG's header states; 8 for other files."""
    return data[24] if data[:4] == b"\x89PNG" and len(data) > 24 else 8


def _deep_samples(image: ImageFile.ImageFile, data: bytes, name: str, max_pixels: int) -> Array | None:
    """uint16 [H,W,C] of a 16-bit PNG or TIFF with more than one channel, else None.

    Pillow has no such mode: it unpacks either the first or the second byte of each sample, so both are asked for.
    """
    if image.format == heic.PLUGIN:
        return heic.deep_samples(image, data)
    raw = _raw_mode(image)
    layout, _, order = raw.partition(";16")
    if image.mode not in ("RGB", "RGBA") or not order:
        return None
    if raw == "LA;16B":  # four bytes per pixel: read as four 8-bit channels, they are all there at once
        quads = _unpacked(data, "RGBA", name, max_pixels).astype(np.uint16)
        return quads[..., 0::2] << 8 | quads[..., 1::2]  # [H,W,2]
    # Alpha multiplied into the colours (RGBa) is undone later, at full depth.
    layout = "RGBA" if layout == "RGBa" else layout
    first, second = (_unpacked(data, f"{layout};16{end}", name, max_pixels) for end in "BL")
    big_endian = order == "B" or (order == "N" and sys.byteorder == "big")
    high, low = (first, second) if big_endian else (second, first)
    samples = high.astype(np.uint16) << 8 | low
    return _unmultiplied(samples) if raw.startswith("RGBa") else samples


def _unpacked(data: bytes, raw: str, name: str, max_pixels: int) -> Array:
    """The picture in `data` with its samples taken apart as `raw` says, uint8 [H,W,C]."""
    image = opened(io.BytesIO(data), name, max_pixels)
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]
    _load(image, name)
    return np.asarray(image)


def _unmultiplied(samples: Array) -> Array:
    """uint16 [H,W,4] with alpha multiplied into the colours -> without; colours under alpha 0 stay 0."""
    result = samples.copy()
    alpha = samples[..., 3:].astype(np.uint32)
    colours = (samples[..., :3].astype(np.uint64) * 65535 + alpha // 2) // np.maximum(alpha, 1)
    result[..., :3] = np.minimum(colours, 65535)
    return result


def _colour_and_alpha(
    image: Image.Image, samples: Array | None, png_bits: int, name: str
) -> tuple[Array, Array | None]:
    """Pixels [H,W,1|3] and alpha [H,W] or None, of a loaded image or its 16-bit `samples`."""
    if samples is None:
        samples = _shallow_samples(image, name)  # [H,W,C]
    if samples.shape[2] in (2, 4):
        return np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])
    samples = np.ascontiguousarray(samples)
    clear = image.info.get("transparency")
    if clear is None or image.mode not in ("1", "L", "RGB", "I;16"):
        return samples, None
    if image.mode == "L" and png_bits < 8 and isinstance(clear, int):
        clear = clear * 255 // (2**png_bits - 1)  # the file states it in its own depth
    full = 255 if samples.dtype == np.uint8 else 65535
    opaque = (samples != np.array(clear)).any(axis=2)  # [H,W]
    return samples, opaque.astype(samples.dtype) * samples.dtype.type(full)


def _shallow_samples(image: Image.Image, name: str) -> Array:
    """uint8 [H,W,C] of any 8-bit mode, uint16 [H,W,1] of 16-bit grey. Raises ImageError for floating point."""
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;"):
        return _grey_16(image, name)[..., None]
    if mode == "CMYK":
        profile = image.info.get("icc_profile")
        return np.asarray(cmyk_to_rgb(image, profile if isinstance(profile, bytes) else None))
    if mode == "P":
        target = "RGBA" if image.has_transparency_data else "RGB"
    else:
        target = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(mode, mode)
    if target not in ("L", "LA", "RGB", "RGBA"):
        target = "RGB"
    samples = np.asarray(image if target == mode else image.convert(target))
    return samples[..., None] if samples.ndim == 2 else samples


def _grey_16(image: Image.Image, name: str) -> Array:
    """uint16 [H,W] of the modes I;16 and I."""
    values = np.asarray(image)
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point pixels; convert it to 16-bit PNG or TIFF first.")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name} holds 32-bit pixels from {low} to {high}, and 0 to 65535 can be used; convert it to 16 bit first."
        )
    values = values.astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    if tags.get(BITS) == (12,):
        values = values << 4 | values >> 8
    if tags.get(PHOTOMETRIC) == 0:  # white is zero, which Pillow leaves as it is at this depth
        values = 65535 - values
    return values


# --- metadata ---------------------------------------------------------------------------------------------------------


def _exif_and_xmp(image: Image.Image, data: bytes) -> tuple[bytes | None, bytes | None]:
    """As they stand in the file, EXIF as a block of its own."""
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    if image.format == "TIFF":
        exif = exif_from_tiff(data)
        header = read_header(data)
        packet = read_directory(data, *header).get(XMP) if header else None
        xmp = packet.value if packet else None
    elif exif is None and isinstance(legacy := image.info.get("Raw profile type exif"), str):
        with contextlib.suppress(ValueError):  # hexadecimal behind three lines of heading
            exif = bytes.fromhex("".join(legacy.split("\n")[3:]))
    return exif if isinstance(exif, bytes) else None, xmp if isinstance(xmp, bytes) else None


def _upright(image: Image.Image, data: bytes, pixels: Array, alpha: Array | None, found: Metadata) -> Picture:
    """The picture turned as its EXIF says, with what was `found` beside it made true of that."""
    turn = orientation_of(found.exif)
    pixels_turn = 1 if image.format == "TIFF" else turn  # Pillow has turned those
    pixels, alpha = _turned(pixels, pixels_turn), None if alpha is None else _turned(alpha, pixels_turn)
    xmp, notes = true_xmp(found.xmp, pixels.shape[1], pixels.shape[0]) if found.xmp else (None, ())
    size_px = pixels.shape[1], pixels.shape[0]
    metadata = replace(
        found,
        exif=kept_exif(found.exif),
        xmp=upright_xmp(xmp) if xmp and turn != 1 else xmp,
        print_size=print_size_of(image, data, found.exif, size_px, is_turned=turn in (5, 6, 7, 8)),
    )
    return Picture(pixels, alpha, metadata, format_of(image), notes)


def _turned(array: Array, orientation: int) -> Array:
    """[H,W,...] as stored -> upright, after EXIF's eight orientations."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
