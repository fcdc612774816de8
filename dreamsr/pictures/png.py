"""PNG chunks, raw: what Pillow does not tell of, and what has to be written byte for byte.

Source: PNG, third edition (W3C 2025), sections 5 and 11.
"""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"


HARMLESS = frozenset(
    {b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"eXIf", b"bKGD", b"hIST", b"sPLT", b"oFFs", b"caNv"}
)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of every whole chunk up to the end chunk, damaged ones left out."""
    for name, start, end, sound in _spans(data):
        if sound:
            yield name, data[start + 8 : end - 4]


def damaged_chunks(data: bytes) -> list[bytes]:
    """Names of the chunks whose checksums are wrong."""
    return [name for name, _, _, sound in _spans(data) if not sound]


def is_sound(data: bytes) -> bool:
    """Whether every chunk is whole and matches its checksum, up to the end chunk."""
    spans = list(_spans(data))
    end_at = spans[-1][2] if spans else len(SIGNATURE)
    return all(sound for *_, sound in spans) and data.startswith(chunk(b"IEND", b""), end_at)


def mended(data: bytes) -> bytes:
    """The file without damaged chunks on which no pixel depends: a wrong checksum in a text costs the text alone."""
    bad = [(start, end) for name, start, end, sound in _spans(data) if not sound and name in HARMLESS]
    if not bad:
        return data
    starts, ends = [0, *(end for _, end in bad)], [*(start for start, _ in bad), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True))


def _spans(data: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """Name, start, end and soundness of every chunk before the end chunk that is there in full."""
    at = len(SIGNATURE)
    while data.startswith(SIGNATURE) and at + 12 <= len(data):
        length, name = struct.unpack_from(">L4s", data, at)
        end = at + 12 + length
        if end > len(data) or name == b"IEND":
            return
        yield name, at, end, zlib.crc32(data[at + 4 : end - 4]) == struct.unpack_from(">L", data, end - 4)[0]
        at = end


def chunk(name: bytes, content: bytes) -> bytes:
    """The chunk with its length and checksum."""
    return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(content, zlib.crc32(name)))
