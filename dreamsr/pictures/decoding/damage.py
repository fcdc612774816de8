"""Damage that decoders pass over in silence: pictures that come out whole in size, and grey or garbled in part.

What can be found, and what not: JPEG, wherever libjpeg warns (data missing, codes that do not exist, more than
PADDING_BYTES left over); a changed byte that still makes sense to it goes unseen, as does everything where OpenCV's
libjpeg does not print or standard error is closed. WebP, where the decoder is done before the data is, or has too
little of it; damage after which it needs just as much goes unseen. PNG, by the checksums. TIFF, where libtiff prints;
where it is deflated, by the checksums of its strips; where it consists of JPEGs, as in those. AVIF, where OpenCV has
libaom, which looks whether each tile ends where it should, as Pillow's dav1d does not. HEIC, where libde265 is heard.
"""

import functools
import io
import re
import zlib

import numpy as np
from PIL import Image

from dreamsr.errors import ImageError, printable
from dreamsr.pictures.decoding.chatter import caught
from dreamsr.pictures.decoding.hevc import hevc_damage
from dreamsr.pictures.decoding.jpeg import END_OF_IMAGE, with_tables
from dreamsr.pictures.png import damaged_chunks
from dreamsr.pictures.tiff import COMPRESSION, JPEG_TABLES, number, read_directory, read_header, strips_of

PADDING_BYTES = 64  # some cameras leave as much between the picture and its end marker
WEBP_SLACK_BYTES = 16  # no encoder writes so much that a decoder does not need: 2 to 4 are seen
JPEG_IN_TIFF, DEFLATE_IN_TIFF = 7, (8, 32946)
DEFLATE_STEP_BYTES = 1 << 20
UNCONFIGURED = re.compile("not configured|not implemented|not supported|unsupported", re.IGNORECASE)
CORRUPT = re.compile(
    r"aom_codec_decode\(\) failed: Corrupt frame detected: (.+?)(?: Decoding of .+)?(?: in function|$)"
)
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes")


def damage_in(data: bytes, format: str) -> str:
    """What is wrong with the pixels of a file that decodes without an error, in words; "" for nothing found."""
    if format == "JPEG":
        return _jpeg_damage(data)
    if format == "TIFF":
        return _tiff_damage(data)
    if format == "AVIF":
        return next((found[1] for line in _opencv_lines(data) if (found := CORRUPT.search(line))), "")
    if format == "HEIC":
        return hevc_damage(data)
    if format == "WEBP" and _is_decoded_without_its_end(data):
        return "the picture ends before its data does"
    critical = [name for name in damaged_chunks(data) if name[:1].isupper()] if format == "PNG" else []
    return f"the checksum of its {critical[0].decode('ascii', 'replace')} chunk is wrong" if critical else ""


def completed(data: bytes) -> bytes:
    """A JPEG with an end marker, which is all that some copies lack. What else is missing, `damage_in` finds."""
    return data + END_OF_IMAGE if _warnings_are_heard() and END_OF_IMAGE not in data[-2:] else data


def load_tiff(image: Image.Image, name: str) -> str:
    """Decodes the pixels of a TIFF; what libtiff printed, "" for nothing. Raises ImageError, in libtiff's words."""
    try:
        with caught() as lines:
            image.load()
    except OSError as error:
        missing = next((line for line in lines if UNCONFIGURED.search(line)), None)
        if missing:
            raise ImageError(
                f"{name} is a TIFF of a kind that is not read ({printable(missing)}); save it again with LZW "
                "or deflate."
            ) from error
        raise OSError(lines[0] if lines else str(error)) from error
    return lines[0] if lines else ""


def _tiff_damage(data: bytes) -> str:
    """What is wrong with a strip or tile of the first page, where its coding tells and libtiff does not ask."""
    header = read_header(data)
    if header is None:
        return ""
    order, entries = header[0].order, read_directory(data, *header)
    coding = number(entries.get(COMPRESSION), order)
    tables = entries[JPEG_TABLES].value if JPEG_TABLES in entries else b""
    for strip in strips_of(data, entries, order):
        damage = _deflate_damage(strip) if coding in DEFLATE_IN_TIFF else ""
        damage = _jpeg_damage(with_tables(tables, strip) + END_OF_IMAGE) if coding == JPEG_IN_TIFF else damage
        if damage:
            return damage
    return ""


def _deflate_damage(data: bytes) -> str:
    """libtiff stops at the last row, before the checksum."""
    stream = zlib.decompressobj()
    try:
        while data and not stream.eof:
            stream.decompress(data, DEFLATE_STEP_BYTES)
            data = stream.unconsumed_tail
    except zlib.error as error:
        return f"ZIP: {str(error).partition(': ')[2]}"
    return ""


def _jpeg_damage(data: bytes) -> str:
    for line in _opencv_lines(data):
        left_over = EXTRANEOUS.search(line)
        if left_over is None or int(left_over[1]) > PADDING_BYTES:
            return line.removeprefix("Corrupt JPEG data: ")
    return ""


def _opencv_lines(data: bytes) -> list[str]:
    """What OpenCV's decoders print of the data: libjpeg its first warning at least, libaom why it gives up."""
    import cv2  # only pictures that need it wait for it

    how = cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION  # all data is looked at, few pixels are made
    with caught() as lines:
        try:
            cv2.imdecode(np.frombuffer(data, np.uint8), how)
        except cv2.error:
            return []  # more pixels than OpenCV takes
    return lines


@functools.cache
def _warnings_are_heard() -> bool:
    """Whether this OpenCV prints, and standard error is there to be listened to: tried on half a JPEG."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG")
    return bool(_opencv_lines(file.getvalue()[: len(file.getvalue()) // 2] + END_OF_IMAGE))


def _is_decoded_without_its_end(data: bytes) -> bool:
    """Whether a WebP can do without the last bytes of its picture, all of which a sound one needs."""
    shorter = _shortened_webp(data)
    if shorter is None:
        return False
    try:
        with Image.open(io.BytesIO(shorter), formats=["WEBP"]) as image:
            image.load()
    except OSError:
        return False
    return True


def _shortened_webp(data: bytes) -> bytes | None:
    """The file with WEBP_SLACK_BYTES less of its picture, all lengths corrected; None where it has too few."""
    at = 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            kept = length - WEBP_SLACK_BYTES
            if kept < WEBP_SLACK_BYTES:
                return None
            body = data[12:at] + name + kept.to_bytes(4, "little") + data[at + 8 : at + 8 + kept] + bytes(kept % 2)
            return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body
        at += 8 + length + length % 2
    return None
