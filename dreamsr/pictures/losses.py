"""Notes, a line each: what of a file a Picture cannot hold, and what of a Picture a file of some format cannot."""

import re

import numpy as np
from PIL import Image

from dreamsr.pictures import heic
from dreamsr.pictures.colours.boxes import bits_of, properties_of_main
from dreamsr.pictures.inscriptions import plain_text
from dreamsr.pictures.opening import format_of
from dreamsr.pictures.picture import Picture, loses_depth
from dreamsr.pictures.write import JPEG_SEGMENT_BYTES, JPEG_XMP_BYTES

CREDENTIALS = re.compile(rb"c2pa\.(?:claim|assertions)")
FILM_BEHIND = re.compile(rb"\xff\xd9.{0,96}?(?:....ftyp|MotionPhoto_Data)", re.DOTALL)


def not_read(image: Image.Image, data: bytes, *, is_deep: bool, dtype: np.dtype[np.generic]) -> tuple[str, ...]:
    """What of the file `data` is not in the picture read from it: bits, further pictures, a film.

    is_deep  whether Pillow speaks of 16 bits per sample     dtype  of the pixels as they were read
    """
    notes = []
    bits = 16 if is_deep else bits_of(properties_of_main(data)) if image.format == "AVIF" else 8
    if bits > 8 and dtype == np.uint8:
        kind = "CMYK" if image.mode == "CMYK" else format_of(image)
        notes.append(f"{bits}-bit {kind} became 8 bit as it was read")
    more = image.format in ("MPO", heic.PLUGIN) and getattr(image, "n_frames", 1) > 1
    mapped = image.format in ("AVIF", heic.PLUGIN) and b"tmap" in data[8:64]  # the brand of gain maps
    if more or mapped or image.info.get("aux") or image.info.get("depth_images"):
        notes.append("what else the file holds (more pictures, a depth or gain map) was left out")
    if format_of(image) == "JPEG" and FILM_BEHIND.search(data):
        notes.append("the film in the file was left out")
    if CREDENTIALS.search(data):
        notes.append("content credentials (C2PA) were left out, since they vouch for the pixels as they were")
    return tuple(notes)


def not_written(picture: Picture, format: str, *, strip: bool = False) -> tuple[str, ...]:
    """What of `picture` a file of `format` does not hold; with `strip`, of the pixels alone."""
    notes = []
    if loses_depth(picture, format):
        notes.append(f"16 bit became 8 bit, which is all that {format} holds")
    if strip:
        return tuple(notes)
    metadata = picture.metadata
    exif_limit, xmp_limit = {"JPEG": (JPEG_SEGMENT_BYTES, JPEG_XMP_BYTES), "BMP": (0, 0)}.get(format, (2**32, 2**32))
    given = {
        "EXIF": len(metadata.exif or b"") > exif_limit,
        "XMP": len(metadata.xmp or b"") > xmp_limit,
        "text": format != "PNG" and any(format != "JPEG" or plain_text(*text) is None for text in metadata.texts),
        "comment": bool(metadata.comments) and format not in ("PNG", "JPEG"),
        "IPTC": metadata.resources is not None and format not in ("PNG", "JPEG", "TIFF"),
    }
    dropped = [name for name, is_lost in given.items() if is_lost]
    if dropped:
        notes.append(f"{', '.join(dropped)} dropped, for which {format} has no room")
    return tuple(notes)
