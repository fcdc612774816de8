"""What libde265 says of the pictures in a HEIC file, and libheif keeps to itself: damage that it conceals.

pillow-heif brings libde265 as a library of its own, whose functions the loader finds through pillow-heif's module on
Linux and macOS. Where it does not find them, nothing is heard.
Source: libde265's de265.h; ISO/IEC 14496-15 section 8.3.3 (hvcC, and units behind their lengths).
"""

import ctypes
import functools
import struct
from collections.abc import Iterator

from dreamsr.pictures.colours.boxes import Coded, coded_main

START_CODE = b"\0\0\0\1"
WARNINGS = {
    8: "a coded parameter is out of range",
    1002: "a slice ends too early",
    1003: "the parts of a slice are not where they should be",
    1004: "a slice goes on beyond the picture",
    1017: "a slice does not end where it should",
}
"""Numbers of de265_error after which pixels are wrong; others are of no consequence to a single picture."""


def hevc_damage(data: bytes) -> str:
    """What is wrong with the main picture of a HEIC file or with its alpha, in words; "" for nothing heard."""
    library = _libde265()
    if library is None:
        return ""
    return next(filter(None, (_warning(library, _byte_stream(picture)) for picture in coded_main(data))), "")


@functools.cache
def _libde265() -> ctypes.CDLL | None:
    """The library in use, None where its functions are not found."""
    try:
        import _pillow_heif

        library = ctypes.CDLL(_pillow_heif.__file__)
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        library.de265_new_decoder.restype = library.de265_get_next_picture.restype = pointer
        library.de265_push_data.argtypes = (pointer, ctypes.c_char_p, integer, ctypes.c_int64, pointer)
        library.de265_decode.argtypes = (pointer, ctypes.POINTER(integer))
        for name in ("flush_data", "get_next_picture", "get_warning", "free_decoder"):
            getattr(library, f"de265_{name}").argtypes = (pointer,)
    except (ImportError, OSError, AttributeError):
        return None
    return library


def _warning(library: ctypes.CDLL, stream: bytes) -> str:
    """The first of WARNINGS while the stream is decoded; "" for none."""
    decoder = library.de265_new_decoder()
    try:
        library.de265_push_data(decoder, stream, len(stream), 0, None)
        library.de265_flush_data(decoder)
        more = ctypes.c_int(1)
        while more.value:
            failed = library.de265_decode(decoder, ctypes.byref(more))
            while number := library.de265_get_warning(decoder):
                if number in WARNINGS:
                    return WARNINGS[number]
            if failed or library.de265_get_next_picture(decoder):
                break  # libheif reports failure itself, and takes the first picture
        return ""
    finally:
        library.de265_free_decoder(decoder)


def _byte_stream(picture: Coded) -> bytes:
    """The units of the picture, its parameters before them, each behind a start code; b"" for other codings."""
    header = next((content for kind, content in picture.properties if kind == b"hvcC"), b"")
    try:
        units = [*_parameters(header), *_units(picture.stream, header[21] % 4 + 1)]
    except (IndexError, struct.error):
        return b""
    return b"".join(START_CODE + unit for unit in units)


def _parameters(header: bytes) -> Iterator[bytes]:
    """The units in a hvcC box."""
    at = 23
    for _ in range(header[22]):
        (count,) = struct.unpack_from(">H", header, at + 1)
        at += 3
        for _ in range(count):
            (length,) = struct.unpack_from(">H", header, at)
            yield header[at + 2 : at + 2 + length]
            at += 2 + length


def _units(stream: bytes, length_bytes: int) -> Iterator[bytes]:
    """The units of a stream in which each stands behind its length."""
    at = 0
    while at + length_bytes <= len(stream):
        end = at + length_bytes + int.from_bytes(stream[at : at + length_bytes], "big")
        yield stream[at + length_bytes : end]
        at = end
